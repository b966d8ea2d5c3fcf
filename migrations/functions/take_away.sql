-- take_away(): revoke a run from its holder by force, without waiting for it to be dead.
--
-- The fence is raised at once, so that nothing fenced of the old holder commits any more, and its next heartbeat says
-- lost. Its command may still be running: the instance bars its successor until it has reported its end, its death is
-- certified, or it has been silent for stale_after. With p_unsafe it does not, and two may be at work.
--
-- Verdicts: ok · not_running · locked (somebody's transaction holds a row of ours; a fenced one has been ended).
DROP FUNCTION IF EXISTS take_away(text, text, boolean);
CREATE OR REPLACE FUNCTION take_away(
    p_run_id text, p_requested_by text, p_unsafe boolean, p_reason text DEFAULT NULL,
    OUT verdict text, OUT holder jsonb, OUT blocked_by integer[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_run      runs;
    v_instance executor_instances;
BEGIN
    BEGIN
        PERFORM lock_briefly();
        SELECT * INTO v_run FROM runs r WHERE r.run_id = p_run_id FOR NO KEY UPDATE;
        SELECT * INTO v_instance FROM executor_instances i
         WHERE i.run_id = p_run_id AND i.attempt = v_run.attempt FOR NO KEY UPDATE;
    EXCEPTION WHEN lock_not_available THEN
        verdict := 'locked';
        blocked_by := evict_blockers(p_run_id, true);
        RETURN;
    END;
    holder := holder(v_instance, clock_timestamp());
    verdict := 'ok';
    IF v_instance.status = 'RUNNING' THEN
        PERFORM commit_durably();
        UPDATE runs r SET fence = greatest(r.fence, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 1) + 1
         WHERE r.run_id = p_run_id;
        PERFORM end_instances(ARRAY[v_instance.instance_id], ARRAY['CRASHED'], ARRAY[NULL::integer], ARRAY['forced'], ARRAY[0],
            ARRAY[jsonb_build_object(
                'taken_away_by', p_requested_by, 'reason', p_reason, 'unsafe', p_unsafe, 'last_heartbeat', v_instance.last_heartbeat)]);
        UPDATE executor_instances i SET bars_successor = NOT p_unsafe WHERE i.instance_id = v_instance.instance_id;
    ELSIF v_instance.bars_successor AND p_unsafe THEN
        PERFORM unbar(v_instance, jsonb_build_object('unsafe', true, 'by', p_requested_by, 'reason', p_reason));
    ELSIF NOT coalesce(v_instance.bars_successor, false) THEN
        verdict := 'not_running';
        holder := NULL;
    END IF;
END
$$;
