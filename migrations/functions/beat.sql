-- beat(): one call for all instances of an executor; also how a process without instances learns the clock.
--
-- Per instance: ok (heartbeat written) · busy (its row is locked by somebody: nothing renewed, nothing lost, try again) ·
-- lost (it has left RUNNING, or never was: the only verdict that ends a tenure). Rows locked by others are skipped, so
-- no heartbeat waits, and are taken in order of their key, so that two batches cannot deadlock.
CREATE OR REPLACE FUNCTION beat(
    p_instances uuid[], p_phases bigint[], p_child_pids integer[],
    OUT at timestamptz, OUT instances uuid[], OUT verdicts text[], OUT stops boolean[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_rows       tid[];
    v_phases     bigint[];
    v_child_pids integer[];
BEGIN
    at := clock_timestamp();
    IF coalesce(cardinality(p_instances), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM commit_heartbeat();
    SELECT array_agg(told.instance_id), array_agg(i.at), array_agg(told.phases), array_agg(told.child_pid),
           array_agg(CASE WHEN i.at IS NOT NULL THEN 'ok' WHEN seen.running THEN 'busy' ELSE 'lost' END),
           array_agg(coalesce(i.stop, false))
      INTO instances, v_rows, v_phases, v_child_pids, verdicts, stops
      FROM (SELECT * FROM unnest(p_instances, p_phases, p_child_pids) AS t (instance_id, phases, child_pid) ORDER BY t.instance_id) told
      LEFT JOIN LATERAL (SELECT e.ctid AS at, e.stop_requested_at IS NOT NULL AS stop FROM executor_instances e
                          WHERE e.instance_id = told.instance_id AND e.ended_at IS NULL
                            FOR NO KEY UPDATE SKIP LOCKED) i ON true
      LEFT JOIN LATERAL (SELECT e.ended_at IS NULL AS running FROM executor_instances e
                          WHERE e.instance_id = told.instance_id AND i.at IS NULL OFFSET 0) seen ON true;
    -- A statement of its own sees what was locked as it is now.
    UPDATE executor_instances i
       SET last_heartbeat = clock_timestamp(),
           phases_executed = greatest(i.phases_executed, f.phases),
           child_pid = coalesce(f.child_pid, i.child_pid)
      FROM unnest(v_rows, v_phases, v_child_pids) AS f (at, phases, child_pid) WHERE i.ctid = f.at;
END
$$;
