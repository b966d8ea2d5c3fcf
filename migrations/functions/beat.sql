-- beat(): one statement for all instances of an executor; also how a process without instances learns the clock.
--
-- Per instance: ok (heartbeat written) · busy (its row is locked by somebody: nothing renewed, nothing lost, try again) ·
-- lost (it has left RUNNING, or never was: the only verdict that ends a tenure). Rows locked by others are skipped, so
-- no heartbeat waits, and are taken in order of their key, so that two batches cannot deadlock.
CREATE OR REPLACE FUNCTION beat(
    p_instances uuid[], p_phases bigint[], p_child_pids integer[],
    OUT at timestamptz, OUT instances uuid[], OUT verdicts text[], OUT stops boolean[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    at := clock_timestamp();
    IF coalesce(cardinality(p_instances), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM commit_heartbeat();
    WITH told AS MATERIALIZED (
        SELECT * FROM unnest(p_instances, p_phases, p_child_pids) AS t (instance_id, phases, child_pid)
    ), free AS MATERIALIZED (
        SELECT i.instance_id FROM executor_instances i
         WHERE i.instance_id = ANY (p_instances) AND i.status = 'RUNNING'
         ORDER BY i.instance_id FOR NO KEY UPDATE SKIP LOCKED
    ), beaten AS (
        UPDATE executor_instances i
           SET last_heartbeat = clock_timestamp(),
               phases_executed = greatest(i.phases_executed, told.phases),
               child_pid = coalesce(told.child_pid, i.child_pid)
          FROM free JOIN told USING (instance_id)
         WHERE i.instance_id = free.instance_id AND i.status = 'RUNNING'
        RETURNING i.instance_id, i.stop_requested_at IS NOT NULL AS stop
    )
    SELECT array_agg(told.instance_id), array_agg(
               CASE WHEN beaten.instance_id IS NOT NULL THEN 'ok'
                    WHEN seen.status = 'RUNNING' THEN 'busy'
                    ELSE 'lost' END),
           array_agg(coalesce(beaten.stop, false))
      INTO instances, verdicts, stops
      FROM told
      LEFT JOIN beaten USING (instance_id)
      LEFT JOIN executor_instances seen USING (instance_id);
END
$$;
