-- finish(): the holder's own word on how its instance ended.
--
-- Verdicts: ok (recorded now, or exactly this was recorded before) · lost (it had left RUNNING in another way, or the
-- fence is not its own: nothing is changed).
CREATE OR REPLACE FUNCTION finish(
    p_instance_id uuid, p_fence bigint, p_status text, p_exit_code integer, p_cause text, p_phases bigint, p_detail jsonb,
    OUT verdict text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_instance executor_instances;
BEGIN
    PERFORM lock_briefly();
    PERFORM FROM runs WHERE run_id = (SELECT run_id FROM executor_instances WHERE instance_id = p_instance_id)
        FOR NO KEY UPDATE;
    SELECT * INTO v_instance FROM executor_instances WHERE instance_id = p_instance_id FOR NO KEY UPDATE;
    IF NOT FOUND OR v_instance.fence IS DISTINCT FROM p_fence THEN
        verdict := 'lost';
    ELSIF v_instance.status = 'RUNNING' THEN
        PERFORM commit_durably();
        PERFORM end_instance(p_instance_id, p_status, p_exit_code, p_cause, p_phases, p_detail);
        verdict := 'ok';
    ELSIF (v_instance.status, v_instance.exit_code, v_instance.cause)
          IS NOT DISTINCT FROM (p_status, p_exit_code, p_cause) THEN
        verdict := 'ok';
    ELSE
        -- Taken away by force: this is its holder's word that it is over.
        UPDATE executor_instances SET bars_successor = false WHERE instance_id = p_instance_id AND bars_successor;
        verdict := 'lost';
    END IF;
END
$$;
