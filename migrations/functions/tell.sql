-- tell(): what the commands of an executor say of their progress, as text; returns whose row has it now. Beside beat(), and
-- like it: rows locked by others are skipped, so that whoever tells never waits.
CREATE OR REPLACE FUNCTION tell(p_instances uuid[], p_messages text[], OUT told uuid[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM commit_carelessly();
    WITH free AS MATERIALIZED (
        SELECT i.at, said.message
          FROM (SELECT * FROM unnest(p_instances, p_messages) AS t (instance_id, message) ORDER BY t.instance_id) said
         CROSS JOIN LATERAL (SELECT e.ctid AS at FROM executor_instances e
                              WHERE e.instance_id = said.instance_id AND e.ended_at IS NULL
                                FOR NO KEY UPDATE SKIP LOCKED) i
    ), noted AS (
        UPDATE executor_instances i SET message = left(free.message, 200)
          FROM free WHERE i.ctid = free.at
        RETURNING i.instance_id
    )
    SELECT coalesce(array_agg(instance_id), '{}') INTO told FROM noted;
END
$$;
