-- reap(): end the instances whose holders are dead by their age, some at a time. What is queued goes back to its queue.
--
-- Look, then lock, then test, as claim() does, and by the same staleness(). Whoever is locked is left for the next time.
CREATE OR REPLACE FUNCTION reap(
    p_by text, p_trusted_since timestamptz, p_expected_now timestamptz, p_tolerance_ms bigint, p_limit integer
) RETURNS TABLE (run_id text, executor_id text, reason text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_silent executor_instances;
    v_at     timestamptz;
BEGIN
    FOR v_silent IN
        SELECT * FROM executor_instances i
         WHERE (i.status = 'RUNNING' OR i.bars_successor) AND i.last_heartbeat < clock_timestamp() - i.stale_after
         ORDER BY i.run_id LIMIT p_limit
    LOOP
        run_id := v_silent.run_id;
        executor_id := v_silent.executor_id;
        v_at := clock_timestamp();
        reason := staleness(v_silent, v_at, p_trusted_since, p_expected_now, p_tolerance_ms);
        IF reason = '' THEN
            PERFORM FROM runs r WHERE r.run_id = v_silent.run_id FOR NO KEY UPDATE SKIP LOCKED;
            IF NOT FOUND THEN
                PERFORM evict_blockers(v_silent.run_id, true);
                reason := 'locked';
            END IF;
        END IF;
        IF reason = '' THEN
            SELECT * INTO v_silent FROM executor_instances i
             WHERE i.instance_id = v_silent.instance_id AND (i.status = 'RUNNING' OR i.bars_successor)
               FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                v_at := clock_timestamp();
                reason := staleness(v_silent, v_at, p_trusted_since, p_expected_now, p_tolerance_ms);
            ELSE
                reason := 'locked';
            END IF;
        END IF;
        IF reason = '' THEN
            PERFORM commit_durably();
            IF v_silent.bars_successor THEN
                UPDATE executor_instances i SET bars_successor = false WHERE i.instance_id = v_silent.instance_id;
            ELSE
                PERFORM end_instance(v_silent.instance_id, 'CRASHED', NULL, 'stale', 0, jsonb_build_object(
                    'declared_by', p_by, 'last_heartbeat', v_silent.last_heartbeat,
                    'margin_seconds', extract(epoch FROM v_at - v_silent.last_heartbeat - v_silent.stale_after)));
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
