-- readopt(): take up again a tenure that was granted, and is missing since a failover. Its holder knows all that it said then.
--
-- Only one of the line of commits just before this one, or of a line between them that this server has never heard of: what
-- was granted before that, and never said here, may have been granted to somebody else on the line between, and that may be
-- missing as well. Of those the fence decides: it was granted above all that the run had seen, so whoever has a higher one
-- came later. Nobody can, while there is a quarantine. One of the run that is still RUNNING here was granted before, and its
-- end is missing as well: that it has ended is certain, how may be known to its certificate. But when the quarantine is over,
-- it may have gone on (heartbeat.rs), and keeps the run. So whether it is over is asked behind the lock of that instance, as
-- its heartbeat asks.
--
-- Verdicts: ok (its heartbeats count again, or never ceased to) · lost (it has ended, or somebody else has a right to the run).
CREATE OR REPLACE FUNCTION readopt(
    p_run_id text, p_instance_id uuid, p_fence bigint, p_attempt integer,
    p_executor_id text, p_host text, p_pid integer, p_boot_id text, p_pid_namespace text, p_process_started bigint,
    p_containment text, p_stale_after_ms bigint, p_death_secret_hash bytea, p_purpose text, p_history text,
    OUT verdict text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_settings   settings;
    v_run        runs;
    v_before     executor_instances;
    v_mine       executor_instances;
    v_cancelled  boolean;
BEGIN
    PERFORM quarantined_until();  -- we may be the first to see the new history
    SELECT * INTO STRICT v_settings FROM settings;
    SELECT * INTO v_mine FROM executor_instances i WHERE i.instance_id = p_instance_id;
    IF FOUND THEN
        verdict := CASE WHEN v_mine.ended_at IS NULL AND v_mine.fence = p_fence THEN 'ok' ELSE 'lost' END;
        RETURN;
    END IF;
    IF v_settings.history <> history() THEN
        RAISE EXCEPTION 'somebody is writing down that this server continues %, and has not committed that: ask again', history()
            USING ERRCODE = 'lock_not_available';
    END IF;
    verdict := 'lost';
    IF (p_history = v_settings.history_before
        OR split_part(v_settings.history_before, '-', 1) = split_part(v_settings.history, '-', 1)
           AND p_history COLLATE "C" > v_settings.history_before AND p_history COLLATE "C" < v_settings.history) IS NOT TRUE THEN
        RETURN;
    END IF;
    -- Heartbeats of other tenures wait behind this: whoever finds a row locked asks again.
    PERFORM set_config('lock_timeout', '20ms', true);
    SELECT * INTO v_run FROM runs r WHERE r.run_id = p_run_id FOR NO KEY UPDATE;
    -- What was pruned has been superseded, or has ended. And the clock of this server may be behind that of the last one: then
    -- whoever came later may have the lower fence. Who wants the run done anew does not want this attempt.
    IF p_fence <= greatest(v_run.fence, v_settings.fence_floor)
       OR EXISTS (SELECT FROM run_events e
                   WHERE e.run_id = p_run_id AND e.id > v_settings.last_event_before AND e.kind IN ('claimed', 'submitted', 'retried')) THEN
        RETURN;
    END IF;
    v_cancelled := EXISTS (SELECT FROM run_events e WHERE e.run_id = p_run_id AND e.id > v_settings.last_event_before
                              AND e.kind = 'cancelled' AND e.instance_id IS NULL);
    SELECT * INTO v_before FROM executor_instances i WHERE i.run_id = p_run_id AND i.status = 'RUNNING' FOR NO KEY UPDATE;
    IF FOUND AND quarantined_until() IS NULL THEN
        RETURN;
    END IF;
    PERFORM commit_durably();
    IF v_run.run_id IS NULL THEN
        -- If two do this at once, one of them fails, and asks again.
        INSERT INTO runs (run_id, status) VALUES (p_run_id, 'RUNNING') RETURNING * INTO v_run;
    END IF;
    IF v_before.instance_id IS NOT NULL THEN
        PERFORM end_instances(ARRAY[v_before.instance_id], ARRAY['RELEASED'], ARRAY[NULL::integer], ARRAY[NULL::text], ARRAY[0],
                              ARRAY[jsonb_build_object('end_lost_in_failover', true, 'followed_by', p_executor_id)]);
    END IF;
    PERFORM unbar(i, jsonb_build_object('followed_by', p_executor_id))
       FROM executor_instances i WHERE i.run_id = p_run_id AND i.bars_successor;
    -- The fence tells when it was granted, which was before the failover, whatever this clock says.
    INSERT INTO executor_instances
        (instance_id, run_id, attempt, fence, status, executor_id, host, pid, boot_id, pid_namespace, process_started,
         containment, purpose, stale_after, death_secret_hash, started_at, last_heartbeat, stop_requested_at)
    VALUES
        (p_instance_id, p_run_id, greatest(p_attempt, v_run.attempt + 1), p_fence, 'RUNNING', p_executor_id, p_host, p_pid,
         p_boot_id, p_pid_namespace, p_process_started, p_containment, coalesce(p_purpose, v_run.purpose),
         p_stale_after_ms * interval '1 millisecond', p_death_secret_hash,
         least(to_timestamp(p_fence / 1e6), clock_timestamp()), clock_timestamp(),
         CASE WHEN v_cancelled THEN clock_timestamp() END)
    RETURNING * INTO v_mine;
    UPDATE runs r
       SET status = 'RUNNING', attempt = v_mine.attempt, fence = p_fence, purpose = coalesce(p_purpose, r.purpose),
           updated_at = clock_timestamp()
     WHERE r.run_id = p_run_id;
    PERFORM append_event('readopted', p_run_id, v_mine, jsonb_build_object(
        'attempt', v_mine.attempt, 'containment', p_containment, 'history', p_history));
    verdict := 'ok';
END
$$;
