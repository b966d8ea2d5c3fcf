-- request_stop(): ask the holder of a run to stop it. The holder hears of it with its next heartbeat.
--
-- Verdicts: ok · already (asked before) · not_running.
DROP FUNCTION IF EXISTS request_stop(text, text);
CREATE OR REPLACE FUNCTION request_stop(
    p_run_id text, p_requested_by text, p_reason text DEFAULT NULL, OUT verdict text, OUT holder jsonb
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
#variable_conflict use_column
DECLARE
    v_instance executor_instances;
BEGIN
    PERFORM lock_briefly();
    PERFORM FROM runs r WHERE r.run_id = p_run_id FOR NO KEY UPDATE;
    SELECT * INTO v_instance FROM executor_instances i WHERE i.run_id = p_run_id AND i.status = 'RUNNING'
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        verdict := 'not_running';
        RETURN;
    END IF;
    holder := holder(v_instance, clock_timestamp());
    IF v_instance.stop_requested_at IS NOT NULL THEN
        verdict := 'already';
        RETURN;
    END IF;
    UPDATE executor_instances i SET stop_requested_at = clock_timestamp() WHERE i.instance_id = v_instance.instance_id;
    PERFORM append_event('stop_requested', p_run_id, v_instance, jsonb_build_object(
        'requested_by', p_requested_by, 'reason', p_reason));
    verdict := 'ok';
END
$$;
