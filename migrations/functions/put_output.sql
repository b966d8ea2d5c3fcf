-- put_output(): the newest of what attempts have written, of many at once; returns for how many it was taken.
--
-- Each for its own instance, by its fence. One that has ended may still bring its last words: for a day, which is as long as a
-- certificate of death is kept for whoever files it with the tail of the file. Nothing comes behind the last words but
-- better ones.
CREATE OR REPLACE FUNCTION put_output(
    p_instances uuid[], p_fences bigint[], p_tails bytea[], p_totals bigint[], p_lost bigint[], p_paths text[], p_last boolean[]
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_taken bigint;
BEGIN
    PERFORM lock_briefly();
    -- All of it is on a disk of the host as well.
    PERFORM commit_carelessly();
    INSERT INTO run_output AS o (instance_id, tail, bytes_total, bytes_lost, path, is_last, updated_at)
    SELECT t.instance_id, t.tail, t.total, t.lost, t.path, t.last, clock_timestamp()
      FROM unnest(p_instances, p_fences, p_tails, p_totals, p_lost, p_paths, p_last)
           AS t (instance_id, fence, tail, total, lost, path, last)
     CROSS JOIN LATERAL (SELECT FROM executor_instances i
                          WHERE i.instance_id = t.instance_id AND i.fence = t.fence
                            AND (i.status = 'RUNNING' OR i.ended_at > clock_timestamp() - interval '1 day') OFFSET 0) i
     ORDER BY t.instance_id
    ON CONFLICT (instance_id) DO UPDATE
       SET tail = EXCLUDED.tail, path = EXCLUDED.path, is_last = EXCLUDED.is_last, updated_at = EXCLUDED.updated_at,
           bytes_total = greatest(o.bytes_total, EXCLUDED.bytes_total),
           bytes_lost = greatest(o.bytes_lost, EXCLUDED.bytes_lost)
     WHERE EXCLUDED.is_last OR NOT o.is_last;
    GET DIAGNOSTICS v_taken = ROW_COUNT;
    RETURN v_taken;
END
$$;
