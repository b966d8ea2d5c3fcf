-- tell(): what the commands of an executor say of their progress, as text; returns whose row has it now. Beside beat(), and
-- like it: rows locked by others are skipped, so that whoever tells never waits.
CREATE OR REPLACE FUNCTION tell(p_instances uuid[], p_messages text[], OUT told uuid[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_rows     tid[];
    v_messages text[];
BEGIN
    PERFORM commit_carelessly();
    SELECT array_agg(i.at), array_agg(said.message) INTO v_rows, v_messages
      FROM (SELECT * FROM unnest(p_instances, p_messages) AS t (instance_id, message) ORDER BY t.instance_id) said
     CROSS JOIN LATERAL (SELECT e.ctid AS at FROM executor_instances e
                          WHERE e.instance_id = said.instance_id AND e.ended_at IS NULL
                            FOR NO KEY UPDATE SKIP LOCKED) i;
    -- A statement of its own sees what was locked as it is now.
    WITH noted AS (
        UPDATE executor_instances i SET message = left(f.message, 200)
          FROM unnest(v_rows, v_messages) AS f (at, message) WHERE i.ctid = f.at
        RETURNING i.instance_id
    )
    SELECT coalesce(array_agg(instance_id), '{}') INTO told FROM noted;
END
$$;
