-- prune(): forget runs that ended longer ago than p_older_than (NULL: than settings say), with their attempts and events, and what
-- befell the fleet; and nodes that were silent for a day, whom nobody is shown any more.
--
-- Some at a time, and never two at once: whoever finds another at it does nothing. The floor of fences is raised first, so that
-- none is ever granted again.
CREATE OR REPLACE FUNCTION prune(p_older_than interval, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_runs text[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('systole prune ' || current_schema(), 0)) THEN
        RETURN 0;
    END IF;
    PERFORM count_incidents(10000);
    DELETE FROM nodes WHERE node_id IN (
        SELECT node_id FROM nodes WHERE last_heartbeat < clock_timestamp() - interval '1 day'
         ORDER BY node_id LIMIT p_limit FOR UPDATE SKIP LOCKED);
    DELETE FROM fleet_events WHERE id IN (
        SELECT e.id FROM fleet_events e
         WHERE e.at < clock_timestamp() - coalesce(p_older_than, (SELECT keep FROM settings)) ORDER BY e.id LIMIT p_limit);
    SELECT array_agg(run_id) INTO v_runs FROM (
        SELECT r.run_id FROM runs r
         WHERE r.status NOT IN ('QUEUED', 'RUNNING')
           AND r.updated_at < clock_timestamp() - coalesce(p_older_than, (SELECT keep FROM settings))
           AND NOT EXISTS (SELECT FROM executor_instances b WHERE b.run_id = r.run_id AND b.bars_successor)
         ORDER BY r.updated_at LIMIT p_limit FOR UPDATE SKIP LOCKED) old;
    IF v_runs IS NULL THEN
        RETURN 0;
    END IF;
    UPDATE settings SET fence_floor = greatest(fence_floor, (SELECT max(fence) FROM runs WHERE run_id = ANY (v_runs)));
    DELETE FROM run_events WHERE run_id = ANY (v_runs);
    DELETE FROM executor_instances WHERE run_id = ANY (v_runs);
    DELETE FROM runs WHERE run_id = ANY (v_runs);
    RETURN cardinality(v_runs);
END
$$;
