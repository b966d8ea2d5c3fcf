-- fence(): the last statement of a user's own transaction: commit only if nobody has taken this run over.
--
-- Raises unless the run's newest fence is the given one, and holds the run until the transaction ends, so that a
-- takeover comes either before it, and is seen, or after it. Call it last: while it is held, a takeover waits.
-- A holder that freezes right here is ended by the idle-in-transaction timeout set below (never longer than the
-- session's own), or by the taker (evict_blockers).
CREATE OR REPLACE FUNCTION fence_marker(p_run_id text) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    -- Another schema of this database may have a run of this name.
    SELECT ('x' || left(md5(format('systole fence %s %s', current_schema(), p_run_id)), 16))::bit(64)::bigint
$$;

CREATE OR REPLACE FUNCTION fence(p_run_id text, p_fence bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_fence   bigint;
    v_timeout interval := current_setting('idle_in_transaction_session_timeout')::interval;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(fence_marker(p_run_id));
    SELECT r.fence INTO v_fence FROM runs r WHERE r.run_id = p_run_id FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no run "%" is known here, so nothing may be done in its name', p_run_id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF v_fence IS DISTINCT FROM p_fence THEN
        RAISE EXCEPTION 'fence % of run "%" was superseded: the run now has fence %', p_fence, p_run_id, v_fence
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Another executor has taken this run over. Roll back and stop.';
    END IF;
    IF v_timeout = interval '0' OR v_timeout > interval '10 seconds' THEN
        PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
    END IF;
END
$$;
