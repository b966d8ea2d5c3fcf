-- file_certificate(): end an instance as its certificate of death says. Anybody of its host may file it.
--
-- The secret stands in the certificate alone, on the disk of the host, and here only as its hash: whoever knows it has
-- read the certificate. Verdicts: ok · already (it had ended before) · unknown (no such instance) · forged.
CREATE OR REPLACE FUNCTION file_certificate(
    p_instance_id uuid, p_secret bytea, p_status text, p_exit_code integer, p_cause text, p_detail jsonb, p_filed_by text,
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
    IF NOT FOUND THEN
        verdict := 'unknown';
    ELSIF (v_instance.death_secret_hash = sha256(p_secret)) IS NOT TRUE THEN  -- nor where there is no secret at all
        verdict := 'forged';
    ELSIF v_instance.status <> 'RUNNING' THEN
        -- Taken away by force: this is the proof that it is over.
        UPDATE executor_instances SET bars_successor = false WHERE instance_id = p_instance_id AND bars_successor;
        verdict := 'already';
    ELSE
        PERFORM commit_durably();
        PERFORM end_instance(p_instance_id, p_status, p_exit_code, p_cause, 0,
                             p_detail || jsonb_build_object('filed_by', p_filed_by));
        verdict := 'ok';
    END IF;
END
$$;
