-- claim(): become the one executor of a run, or learn who is.
--
-- Look, then lock, then test. The look takes no lock, so that a hundred waiters cannot starve the holder's heartbeats.
-- Only to grant or to take over are rows locked, run before instance, each by its key, and only then is the age
-- tested again: a holder whose heartbeat commits while we wait for its row is found alive, because the locked row is
-- read afresh. Fusing look and lock into one statement takes over the living.
--
-- Verdicts: ok (granted) · mine (granted to this very instance before: ask again after an ambiguous answer) ·
-- held (reason fresh, or locked: somebody's transaction holds a row of ours) · dead (silent, but this taker may not
-- conclude it yet: the reasons of staleness(), or locked; or revoked: the run was taken away from it by force, and it
-- may still be at work) · quarantine (the database has failed over, and a claim may be missing whose holder is at work:
-- history.sql) · not_runnable (reason completed, with p_once; or ended: this very instance has been and gone).
-- A version that does not say which it is calls it without p_version.
DROP FUNCTION IF EXISTS claim(
    text, uuid, text, text, integer, text, text, bigint, text, bigint, bytea, text, timestamptz, timestamptz, bigint, boolean, boolean);
CREATE OR REPLACE FUNCTION claim(
    p_run_id text, p_instance_id uuid, p_executor_id text, p_host text, p_pid integer,
    p_boot_id text, p_pid_namespace text, p_process_started bigint,
    p_containment text, p_stale_after_ms bigint, p_death_secret_hash bytea, p_purpose text,
    p_trusted_since timestamptz, p_expected_now timestamptz, p_tolerance_ms bigint,
    p_once boolean, p_note_refusal boolean, p_version text DEFAULT NULL,
    OUT verdict text, OUT reason text, OUT fence bigint, OUT attempt integer,
    OUT at timestamptz, OUT holder jsonb, OUT predecessor jsonb, OUT blocked_by integer[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_settings    settings;
    v_run         runs;
    v_holder      executor_instances;
    v_mine        executor_instances;
    v_predecessor executor_instances;
    v_stale_after interval := p_stale_after_ms * interval '1 millisecond';
    v_afresh      boolean;  -- behind a crash, but nobody has waited for it: tomorrow's start, and no takeover
BEGIN
    SELECT * INTO STRICT v_settings FROM settings;
    PERFORM refuse_unfit(v_settings, p_stale_after_ms, p_version);

    -- Look: at the holder first, so that a grant to us in between, on another connection, is seen as ours.
    at := clock_timestamp();
    SELECT * INTO v_holder FROM executor_instances i WHERE i.run_id = p_run_id AND i.status = 'RUNNING';
    SELECT * INTO v_mine FROM executor_instances i WHERE i.instance_id = p_instance_id;
    IF FOUND THEN
        IF v_mine.run_id <> p_run_id THEN
            RAISE EXCEPTION 'instance % is one of run "%", not of run "%"', p_instance_id, v_mine.run_id, p_run_id
                USING ERRCODE = 'invalid_parameter_value';
        ELSIF v_mine.status = 'RUNNING' THEN
            verdict := 'mine'; fence := v_mine.fence; attempt := v_mine.attempt;
        ELSE
            verdict := 'not_runnable'; reason := 'ended'; holder := holder(v_mine, at);
        END IF;
        RETURN;
    END IF;
    SELECT * INTO v_run FROM runs r WHERE r.run_id = p_run_id;
    IF p_once AND v_run.status = 'COMPLETED' THEN
        verdict := 'not_runnable'; reason := 'completed';
        RETURN;
    END IF;
    IF v_holder.instance_id IS NULL THEN
        SELECT * INTO v_holder FROM executor_instances i
         WHERE i.run_id = p_run_id AND i.attempt = v_run.attempt AND i.bars_successor;
    END IF;
    IF v_holder.instance_id IS NOT NULL THEN
        IF v_holder.last_heartbeat > at + interval '1 second' THEN
            PERFORM begin_to_age(v_holder.instance_id);
        END IF;
        reason := staleness(v_holder, at, p_trusted_since, p_expected_now, p_tolerance_ms);
        IF reason <> '' THEN
            IF v_holder.bars_successor AND reason = 'fresh' THEN
                reason := 'revoked';
            END IF;
            verdict := CASE reason WHEN 'fresh' THEN 'held' WHEN 'quarantine' THEN 'quarantine' ELSE 'dead' END;
            holder := holder(v_holder, at);
            PERFORM commit_carelessly();
            IF p_note_refusal THEN
                PERFORM append_event('refused', p_run_id, v_holder, jsonb_build_object(
                    'refused_executor_id', p_executor_id, 'reason', reason, 'purpose', p_purpose));
                PERFORM append_incident('refusal', '');
            END IF;
            RETURN;
        END IF;
    ELSIF quarantine(v_settings) IS NOT NULL THEN
        verdict := 'quarantine'; reason := 'quarantine';
        PERFORM commit_carelessly();
        RETURN;
    END IF;

    -- Lock: run, then instance, each by its key. Not for long: whoever holds them may be frozen.
    BEGIN
        PERFORM lock_briefly();
        LOOP
            SELECT * INTO v_run FROM runs r WHERE r.run_id = p_run_id FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            -- It never was, or was pruned while we waited for its row.
            INSERT INTO runs (run_id, status) VALUES (p_run_id, 'QUEUED') ON CONFLICT DO NOTHING;
        END LOOP;
        SELECT * INTO v_holder FROM executor_instances i WHERE i.run_id = p_run_id AND i.status = 'RUNNING'
            FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            SELECT * INTO v_holder FROM executor_instances i
             WHERE i.run_id = p_run_id AND i.attempt = v_run.attempt AND i.bars_successor FOR NO KEY UPDATE;
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        at := clock_timestamp();
        PERFORM commit_carelessly();
        -- The holder may have spoken up while we waited: then nobody is dead, and nobody's transaction is ended.
        SELECT * INTO v_holder FROM executor_instances i WHERE i.run_id = p_run_id AND i.status = 'RUNNING';
        IF FOUND THEN
            holder := holder(v_holder, at);
            reason := staleness(v_holder, at, p_trusted_since, p_expected_now, p_tolerance_ms);
            IF reason <> '' THEN
                verdict := CASE reason WHEN 'fresh' THEN 'held' ELSE 'dead' END;
                RETURN;
            END IF;
        END IF;
        reason := 'locked';
        verdict := CASE WHEN v_holder.instance_id IS NULL THEN 'held' ELSE 'dead' END;
        SELECT * INTO v_predecessor FROM executor_instances i
         WHERE i.run_id = p_run_id AND i.attempt = v_run.attempt AND i.status = 'CRASHED';
        blocked_by := evict_blockers(p_run_id, coalesce(v_holder.instance_id, v_predecessor.instance_id) IS NOT NULL);
        RETURN;
    END;

    -- Test, on the rows as they are now that nobody else can change them.
    at := clock_timestamp();
    -- The same claim, asked on another connection, may have been served while we waited, and even be over.
    IF v_holder.instance_id = p_instance_id THEN
        verdict := 'mine'; fence := v_holder.fence; attempt := v_holder.attempt;
        RETURN;
    END IF;
    SELECT holder(i, at) INTO holder FROM executor_instances i WHERE i.instance_id = p_instance_id;
    IF FOUND THEN
        verdict := 'not_runnable'; reason := 'ended';
        RETURN;
    END IF;
    IF p_once AND v_run.status = 'COMPLETED' THEN
        verdict := 'not_runnable'; reason := 'completed';
        RETURN;
    END IF;
    IF v_holder.instance_id IS NOT NULL THEN
        reason := staleness(v_holder, at, p_trusted_since, p_expected_now, p_tolerance_ms);
        IF v_holder.bars_successor AND reason = 'fresh' THEN
            reason := 'revoked';
        END IF;
        IF reason <> '' THEN
            verdict := CASE reason WHEN 'fresh' THEN 'held' ELSE 'dead' END;
            holder := holder(v_holder, at);
            PERFORM commit_carelessly();
            RETURN;
        END IF;
    END IF;
    IF v_holder.bars_successor THEN
        PERFORM unbar(v_holder, jsonb_build_object('silent', true, 'taken_over_by', p_executor_id));
    ELSIF v_holder.instance_id IS NOT NULL THEN
        PERFORM declare_dead(v_holder, at, jsonb_build_object('taken_over_by', p_executor_id));
    END IF;

    -- Grant. A tenure begins behind the end of the one before it, by the same clock.
    at := clock_timestamp();
    PERFORM commit_durably();
    SELECT * INTO v_predecessor FROM executor_instances i
     WHERE i.run_id = p_run_id AND i.attempt = v_run.attempt AND i.status = 'CRASHED';
    -- Whoever waits for the end of one has the run within a poll; force keeps him waiting for one stale_after at most.
    v_afresh := v_holder.instance_id IS NULL AND v_predecessor.ended_at < at - 2 * v_predecessor.stale_after;
    -- The floor as it is behind the locks: pruning raises it.
    fence := greatest(v_run.fence, (SELECT s.fence_floor FROM settings s), floor(extract(epoch FROM at) * 1000000)::bigint - 1) + 1;
    attempt := v_run.attempt + 1;
    UPDATE runs r
       SET status = 'RUNNING', attempt = claim.attempt, fence = claim.fence,
           purpose = coalesce(p_purpose, r.purpose), updated_at = at
     WHERE r.run_id = p_run_id;
    INSERT INTO executor_instances
        (instance_id, run_id, attempt, fence, status, executor_id, host, pid, boot_id, pid_namespace, process_started,
         containment, purpose, stale_after, death_secret_hash, started_at, last_heartbeat)
    VALUES
        (p_instance_id, p_run_id, claim.attempt, claim.fence, 'RUNNING', p_executor_id, p_host, p_pid, p_boot_id,
         p_pid_namespace, p_process_started, p_containment, p_purpose, v_stale_after, p_death_secret_hash, at, at)
    RETURNING * INTO v_mine;
    PERFORM append_event('claimed', p_run_id, v_mine, jsonb_build_object(
        'attempt', attempt, 'purpose', p_purpose, 'containment', p_containment,
        'predecessor', v_predecessor.executor_id, 'predecessor_cause', v_predecessor.cause, 'afresh', nullif(v_afresh, false)));
    verdict := 'ok';
    reason := NULL;
    IF v_predecessor.instance_id IS NOT NULL THEN
        predecessor := holder(v_predecessor, at);
        IF NOT v_afresh THEN
            PERFORM append_incident('takeover', v_predecessor.cause);
        END IF;
    END IF;
END
$$;
