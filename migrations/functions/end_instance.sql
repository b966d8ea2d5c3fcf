-- end_instance(): the one place where an instance leaves RUNNING. The caller holds the locks on the run and on it.
--
-- Moves the run on as PROTOCOL says for a run by hand, and writes the event named after the end.
CREATE OR REPLACE FUNCTION end_instance(
    p_instance_id uuid, p_status text, p_exit_code integer, p_cause text, p_phases bigint, p_detail jsonb
) RETURNS executor_instances
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_ended executor_instances;
BEGIN
    UPDATE executor_instances
       SET status = p_status, exit_code = p_exit_code, cause = p_cause,
           ended_at = greatest(clock_timestamp(), started_at),
           phases_executed = greatest(phases_executed, p_phases)
     WHERE instance_id = p_instance_id AND status = 'RUNNING'
    RETURNING * INTO STRICT v_ended;

    UPDATE runs
       SET status = CASE p_status WHEN 'TIMED_OUT' THEN 'FAILED' WHEN 'RELEASED' THEN 'CANCELLED' ELSE p_status END,
           updated_at = clock_timestamp()
     WHERE run_id = v_ended.run_id;

    PERFORM append_event(lower(p_status), v_ended.run_id, v_ended, p_detail || jsonb_build_object(
        'attempt', v_ended.attempt, 'exit_code', p_exit_code, 'cause', p_cause));
    RETURN v_ended;
END
$$;
