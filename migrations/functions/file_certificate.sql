-- file_certificate(): end an instance as its certificate of death says. Anybody of its host may file it.
--
-- The secret stands in the certificate alone, on the disk of the host, and here only as its hash: whoever knows it has
-- read the certificate. Verdicts: ok · already (it had ended before) · unknown (no such instance) · forged · locked (somebody's
-- transaction holds a row of ours; a fenced one, which was the dead's, has been ended: file it again).
CREATE OR REPLACE FUNCTION file_certificate(
    p_instance_id uuid, p_secret bytea, p_status text, p_exit_code integer, p_cause text, p_detail jsonb, p_filed_by text,
    OUT verdict text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_instance executor_instances;
BEGIN
    SELECT * INTO v_instance FROM executor_instances WHERE instance_id = p_instance_id;
    IF NOT FOUND THEN
        verdict := 'unknown';
        RETURN;
    ELSIF (v_instance.death_secret_hash = sha256(p_secret)) IS NOT TRUE THEN  -- nor where there is no secret at all
        verdict := 'forged';
        RETURN;
    ELSIF v_instance.status <> 'RUNNING' AND NOT v_instance.bars_successor THEN
        -- Whoever holds the run by now has nothing to do with it.
        verdict := 'already';
        RETURN;
    END IF;
    BEGIN
        PERFORM lock_briefly();
        PERFORM FROM runs WHERE run_id = v_instance.run_id FOR NO KEY UPDATE;
        SELECT * INTO v_instance FROM executor_instances WHERE instance_id = p_instance_id FOR NO KEY UPDATE;
    EXCEPTION WHEN lock_not_available THEN
        -- Only while nobody can have followed it: a successor's transaction is not the dead's.
        PERFORM evict_blockers(v_instance.run_id, EXISTS (
            SELECT FROM executor_instances i
             WHERE i.instance_id = p_instance_id AND (i.status = 'RUNNING' OR i.bars_successor)));
        verdict := 'locked';
        RETURN;
    END;
    IF v_instance.status <> 'RUNNING' THEN
        -- Taken away by force: this is the proof that it is over.
        PERFORM unbar(v_instance, jsonb_build_object('certified', true, 'filed_by', p_filed_by));
        verdict := 'already';
    ELSE
        PERFORM commit_durably();
        PERFORM end_instances(ARRAY[p_instance_id], ARRAY[p_status], ARRAY[p_exit_code], ARRAY[p_cause], ARRAY[0],
                              ARRAY[p_detail || jsonb_build_object('filed_by', p_filed_by)]);
        verdict := 'ok';
    END IF;
END
$$;
