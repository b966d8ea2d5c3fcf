-- finish(): the holder's own word on how its instance ended. finish_all(): the same of many, in one transaction.
--
-- Verdicts: ok (recorded now, or exactly this was recorded before) · lost (it had left RUNNING in another way, or the
-- fence is not its own: nothing is changed) · busy (of many only: somebody's transaction holds it, or has just changed it; say it again).
CREATE OR REPLACE FUNCTION finish_all(
    p_instance_ids uuid[], p_fences bigint[], p_statuses text[], p_exit_codes integer[], p_causes text[], p_phases bigint[],
    p_details jsonb[], OUT verdicts text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_ending  uuid[];
    v_barring uuid[];
BEGIN
    -- Each by its key, run before instance, and none waited for.
    WITH told AS MATERIALIZED (
        SELECT s.n, seen.instance_id, i.bars_successor,
               i.ended_at IS NULL AND i.fence = s.fence AS ends,
               CASE WHEN seen.fence IS DISTINCT FROM s.fence THEN 'lost'
                    WHEN i.fence IS NULL THEN 'busy'
                    WHEN i.ended_at IS NULL THEN 'ok'
                    WHEN (i.status, i.exit_code, i.cause) IS NOT DISTINCT FROM (s.status, s.exit_code, s.cause) THEN 'ok'
                    ELSE 'lost' END AS verdict
          FROM unnest(p_instance_ids, p_fences, p_statuses, p_exit_codes, p_causes) WITH ORDINALITY
                 AS s (instance_id, fence, status, exit_code, cause, n)
          LEFT JOIN LATERAL (SELECT e.ctid AS at, e.instance_id, e.run_id, e.fence FROM executor_instances e
                              WHERE e.instance_id = s.instance_id OFFSET 0) seen ON true
          LEFT JOIN LATERAL (SELECT r.run_id FROM runs r WHERE r.run_id = seen.run_id
                                FOR NO KEY UPDATE SKIP LOCKED) held ON true
          LEFT JOIN LATERAL (SELECT e.fence, e.status, e.exit_code, e.cause, e.ended_at, e.bars_successor FROM executor_instances e
                              WHERE e.ctid = seen.at AND held.run_id IS NOT NULL
                                FOR NO KEY UPDATE SKIP LOCKED) i ON true
    )
    SELECT array_agg(t.verdict ORDER BY t.n), array_agg(CASE WHEN t.ends THEN t.instance_id END ORDER BY t.n),
           array_agg(t.instance_id) FILTER (WHERE t.verdict = 'lost' AND t.bars_successor)
      INTO verdicts, v_ending, v_barring FROM told t;
    IF 'ok' = ANY (verdicts) THEN
        PERFORM commit_durably();
        PERFORM end_instances(v_ending, p_statuses, p_exit_codes, p_causes, p_phases, p_details);
    END IF;
    IF v_barring IS NOT NULL THEN
        -- Taken away by force: this is their holders' word that it is over.
        PERFORM unbar(i, '{"reported_by": "its executor"}') FROM executor_instances i WHERE i.instance_id = ANY (v_barring);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION finish(
    p_instance_id uuid, p_fence bigint, p_status text, p_exit_code integer, p_cause text, p_phases bigint, p_detail jsonb,
    OUT verdict text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM lock_briefly();
    PERFORM FROM runs WHERE run_id = (SELECT run_id FROM executor_instances WHERE instance_id = p_instance_id)
        FOR NO KEY UPDATE;
    PERFORM FROM executor_instances WHERE instance_id = p_instance_id FOR NO KEY UPDATE;
    SELECT f.verdicts[1] INTO verdict FROM finish_all(
        ARRAY[p_instance_id], ARRAY[p_fence], ARRAY[p_status], ARRAY[p_exit_code], ARRAY[p_cause], ARRAY[p_phases],
        ARRAY[p_detail]) AS f;
END
$$;
