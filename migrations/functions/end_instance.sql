-- end_instance(): the one place where an instance leaves RUNNING. The caller holds the locks on the run and on it.
--
-- Moves the run on, and writes the event named after the end. A run by hand ends with its instance. One from the queue
-- goes back there when it was given back, crashed or may be retried: a crash and a failure each have a count and a limit of
-- their own, a release has neither. One that is to be restarted goes back whatever stopped it. A retry waits for its
-- backoff, exponential with full jitter; anything else is due at once.
CREATE OR REPLACE FUNCTION end_instance(
    p_instance_id uuid, p_status text, p_exit_code integer, p_cause text, p_phases bigint, p_detail jsonb
) RETURNS executor_instances
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_ended executor_instances;
    v_run   runs;
    v_next  text := p_status;
    v_wait  interval := '0';
BEGIN
    UPDATE executor_instances
       SET status = p_status, exit_code = p_exit_code, cause = p_cause,
           ended_at = greatest(clock_timestamp(), started_at),
           phases_executed = greatest(phases_executed, p_phases)
     WHERE instance_id = p_instance_id AND status = 'RUNNING'
    RETURNING * INTO STRICT v_ended;
    SELECT * INTO STRICT v_run FROM runs WHERE run_id = v_ended.run_id;

    IF v_run.restart_requested AND p_status <> 'COMPLETED' AND v_run.lane_id IS NOT NULL THEN
        v_next := 'QUEUED';
    ELSIF v_run.lane_id IS NULL THEN
        v_next := CASE p_status WHEN 'TIMED_OUT' THEN 'FAILED' WHEN 'RELEASED' THEN 'CANCELLED' ELSE p_status END;
    ELSIF p_status = 'RELEASED' THEN
        v_next := 'QUEUED';
    ELSIF p_status = 'CRASHED' THEN
        v_run.crashes := v_run.crashes + 1;
        v_next := CASE WHEN v_run.crashes >= v_run.crashes_max THEN 'FAILED' ELSE 'QUEUED' END;
    ELSIF p_status IN ('FAILED', 'TIMED_OUT') THEN
        v_run.failures := v_run.failures + 1;
        IF v_run.failures >= v_run.max_attempts OR coalesce(p_exit_code = ANY (v_run.no_retry), false) THEN
            v_next := 'FAILED';
        ELSE
            v_next := 'QUEUED';
            v_wait := random() * least(v_run.backoff * power(2, least(v_run.failures - 1, 20)), interval '1 hour');
        END IF;
    END IF;
    UPDATE runs
       SET status = v_next, restart_requested = false, failures = v_run.failures, crashes = v_run.crashes,
           available_at = CASE WHEN v_next = 'QUEUED' THEN clock_timestamp() + v_wait ELSE available_at END,
           claim_order = CASE WHEN v_wait > interval '0' THEN NULL ELSE claim_order END,
           updated_at = clock_timestamp()
     WHERE run_id = v_ended.run_id;

    PERFORM append_event(lower(p_status), v_ended.run_id, v_ended, p_detail || jsonb_build_object(
        'attempt', v_ended.attempt, 'exit_code', p_exit_code, 'cause', p_cause,
        'run', CASE WHEN v_run.lane_id IS NOT NULL THEN v_next END,
        'poison', CASE WHEN p_status = 'CRASHED' AND v_next = 'FAILED' THEN true END,
        'retry_in_seconds', CASE WHEN v_wait > interval '0' THEN round(extract(epoch FROM v_wait), 1) END));
    RETURN v_ended;
END
$$;
