-- cancel(), retry(), restart(), pause(), resume(), limit_queue(): what people tell the queue, each an event with who said it, and
-- why, if he said so.
--
-- Verdicts of restart: ok (its holder is asked to stop it, and it is queued again then) · those of retry.
-- Verdicts of cancel: ok (it was queued, and is CANCELLED) · running (ask its holder to stop) · ended · unknown.
-- Verdicts of retry: ok (queued anew, its counts at zero) · queued · running · by_hand (nobody knows its command) · unknown.
DROP FUNCTION IF EXISTS cancel(text, text);
CREATE OR REPLACE FUNCTION cancel(p_run_id text, p_by text, p_reason text DEFAULT NULL, OUT verdict text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    v_run  runs;
    v_none executor_instances;
BEGIN
    PERFORM lock_briefly();
    SELECT * INTO v_run FROM runs WHERE run_id = p_run_id FOR NO KEY UPDATE;
    verdict := CASE v_run.status WHEN 'QUEUED' THEN 'ok' WHEN 'RUNNING' THEN 'running' ELSE 'ended' END;
    IF v_run.run_id IS NULL THEN
        verdict := 'unknown';
    ELSIF verdict = 'ok' THEN
        UPDATE runs SET status = 'CANCELLED', updated_at = clock_timestamp() WHERE run_id = p_run_id;
        PERFORM append_event('cancelled', p_run_id, v_none, jsonb_build_object('cancelled_by', p_by, 'reason', p_reason));
    END IF;
END
$$;

DROP FUNCTION IF EXISTS retry(text, text);
CREATE OR REPLACE FUNCTION retry(p_run_id text, p_by text, p_reason text DEFAULT NULL, OUT verdict text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    v_run  runs;
    v_none executor_instances;
BEGIN
    PERFORM lock_briefly();
    SELECT * INTO v_run FROM runs WHERE run_id = p_run_id FOR NO KEY UPDATE;
    IF v_run.run_id IS NULL THEN
        verdict := 'unknown';
    ELSIF v_run.status IN ('QUEUED', 'RUNNING') THEN
        verdict := lower(v_run.status);
    ELSIF v_run.lane_id IS NULL THEN
        verdict := 'by_hand';
    ELSE
        UPDATE runs
           SET status = 'QUEUED', failures = 0, crashes = 0, available_at = clock_timestamp(), updated_at = clock_timestamp(),
               claim_order = clock_timestamp() - priority * interval '1 minute'
         WHERE run_id = p_run_id;
        PERFORM append_event('retried', p_run_id, v_none, jsonb_build_object(
            'retried_by', p_by, 'reason', p_reason, 'had_ended_as', v_run.status));
        PERFORM pg_notify(current_schema(), 'queued ' || (SELECT queue FROM lanes WHERE lane_id = v_run.lane_id));
        verdict := 'ok';
    END IF;
END
$$;

DROP FUNCTION IF EXISTS restart(text, text);
CREATE OR REPLACE FUNCTION restart(p_run_id text, p_by text, p_reason text DEFAULT NULL, OUT verdict text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    v_run      runs;
    v_instance executor_instances;
BEGIN
    PERFORM lock_briefly();
    SELECT * INTO v_run FROM runs WHERE run_id = p_run_id FOR NO KEY UPDATE;
    IF v_run.status IS DISTINCT FROM 'RUNNING' THEN
        SELECT r.verdict INTO verdict FROM retry(p_run_id, p_by, p_reason) r;
    ELSIF v_run.lane_id IS NULL THEN
        verdict := 'by_hand';
    ELSE
        UPDATE runs SET restart_requested = true, failures = 0, crashes = 0 WHERE run_id = p_run_id;
        SELECT * INTO v_instance FROM executor_instances WHERE run_id = p_run_id AND status = 'RUNNING';
        PERFORM append_event('restart_requested', p_run_id, v_instance, jsonb_build_object(
            'requested_by', p_by, 'reason', p_reason));
        PERFORM request_stop(p_run_id, p_by, p_reason);
        verdict := 'ok';
    END IF;
END
$$;

DROP FUNCTION IF EXISTS pause(text);
CREATE OR REPLACE FUNCTION pause(p_queue text, p_by text DEFAULT NULL, p_reason text DEFAULT NULL, OUT changed boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO queues (queue, paused_at) VALUES (p_queue, clock_timestamp())
        ON CONFLICT (queue) DO UPDATE SET paused_at = excluded.paused_at WHERE queues.paused_at IS NULL;
    changed := FOUND;
    IF changed THEN
        INSERT INTO fleet_events (kind, subject, by, reason) VALUES ('paused', p_queue, p_by, p_reason);
    END IF;
END
$$;

DROP FUNCTION IF EXISTS resume(text);
CREATE OR REPLACE FUNCTION resume(p_queue text, p_by text DEFAULT NULL, p_reason text DEFAULT NULL, OUT changed boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE queues SET paused_at = NULL WHERE queue = p_queue AND paused_at IS NOT NULL;
    changed := FOUND;
    IF changed THEN
        INSERT INTO fleet_events (kind, subject, by, reason) VALUES ('resumed', p_queue, p_by, p_reason);
    END IF;
    PERFORM pg_notify(current_schema(), 'queued ' || p_queue);
END
$$;

DROP FUNCTION IF EXISTS limit_queue(text, integer);
CREATE OR REPLACE FUNCTION limit_queue(p_queue text, p_running_max integer, p_by text DEFAULT NULL, p_reason text DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO queues (queue, running_max) VALUES (p_queue, p_running_max)
        ON CONFLICT (queue) DO UPDATE SET running_max = excluded.running_max;
    INSERT INTO fleet_events (kind, subject, by, reason, detail)
    VALUES ('limited', p_queue, p_by, p_reason, jsonb_build_object('running_max', p_running_max));
$$;
