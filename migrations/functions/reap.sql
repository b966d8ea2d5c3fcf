-- reap(): end the instances whose holders are dead by their age, some at a time. What is queued goes back to its queue.
--
-- Look, then lock, then test, as claim() does, and by the same staleness(). Whoever is locked is left for the next time.
--
-- A look at all who hold something is good for half a second, so that a thousand nodes cost no more than two. One that left
-- somebody unjudged because of the taker itself (taker_cold, clock_step) is good for nobody else.
CREATE OR REPLACE FUNCTION reap(
    p_by text, p_trusted_since timestamptz, p_expected_now timestamptz, p_tolerance_ms bigint, p_limit integer
) RETURNS TABLE (run_id text, executor_id text, reason text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_silent    executor_instances;
    v_at        timestamptz;
    v_is_locked boolean;
    v_is_good   boolean := true;
    v_declared  boolean := false;
BEGIN
    PERFORM FROM takeover_brake WHERE swept_at BETWEEN clock_timestamp() - interval '0.5 s' AND clock_timestamp();
    IF FOUND THEN
        RETURN;
    END IF;
    FOR v_silent IN
        -- Each half by its own index, which has nothing else: no plan can find a way through the history.
        SELECT * FROM (
            SELECT * FROM executor_instances i
             WHERE i.status = 'RUNNING' AND (i.last_heartbeat < clock_timestamp() - i.stale_after
                   OR i.last_heartbeat > clock_timestamp() + interval '1 second') OFFSET 0) running
        UNION ALL
        SELECT * FROM (
            SELECT * FROM executor_instances i
             WHERE i.bars_successor AND (i.last_heartbeat < clock_timestamp() - i.stale_after
                   OR i.last_heartbeat > clock_timestamp() + interval '1 second') OFFSET 0) barring
         ORDER BY last_heartbeat LIMIT p_limit
    LOOP
        run_id := v_silent.run_id;
        executor_id := v_silent.executor_id;
        v_at := clock_timestamp();
        IF v_silent.last_heartbeat > v_at THEN
            PERFORM begin_to_age(v_silent.instance_id);
            CONTINUE;
        END IF;
        reason := staleness(v_silent, v_at, p_trusted_since, p_expected_now, p_tolerance_ms);
        IF reason = '' THEN
            PERFORM FROM runs r WHERE r.run_id = v_silent.run_id FOR NO KEY UPDATE SKIP LOCKED;
            v_is_locked := NOT FOUND;
            IF NOT v_is_locked THEN
                PERFORM FROM executor_instances i WHERE i.instance_id = v_silent.instance_id FOR NO KEY UPDATE SKIP LOCKED;
                v_is_locked := NOT FOUND;
            END IF;
            -- As it is now: it may have spoken up since it was looked at, and then nobody's transaction is ended for it.
            SELECT * INTO v_silent FROM executor_instances i
             WHERE i.instance_id = v_silent.instance_id AND (i.ended_at IS NULL OR i.bars_successor);
            CONTINUE WHEN NOT FOUND;
            v_at := clock_timestamp();
            reason := staleness(v_silent, v_at, p_trusted_since, p_expected_now, p_tolerance_ms);
            IF v_is_locked AND reason = '' THEN
                PERFORM evict_blockers(v_silent.run_id, true);
                reason := 'locked';
            END IF;
        END IF;
        IF reason = '' THEN
            PERFORM commit_durably();
            v_declared := true;
            IF v_silent.bars_successor THEN
                PERFORM unbar(v_silent, jsonb_build_object('silent', true, 'declared_by', p_by));
            ELSE
                PERFORM declare_dead(v_silent, v_at, jsonb_build_object('declared_by', p_by));
            END IF;
        END IF;
        v_is_good := v_is_good AND reason NOT IN ('taker_cold', 'clock_step');
        RETURN NEXT;
    END LOOP;
    PERFORM FROM takeover_brake WHERE v_is_good FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        IF NOT v_declared THEN
            PERFORM commit_carelessly();
        END IF;
        UPDATE takeover_brake SET swept_at = clock_timestamp();
    END IF;
END
$$;
