-- submit(): put a run into the queue, in the caller's own transaction: it is there if that commits.
--
-- Raises where it refuses: a run that is queued or running (object_in_use), unless if_absent; one that has ended
-- (duplicate_object), unless again; a value that makes no sense (invalid_parameter_value). Returns true if the run was
-- queued now. Nodes hear of it by NOTIFY, when the transaction commits. Call it with names:
--     SELECT systole.submit('nightly', argv => ARRAY['./train.sh', '--all'], queue => 'gpu', max_attempts => 3)
CREATE OR REPLACE FUNCTION submit(
    run_id text, argv text[] DEFAULT NULL, command text DEFAULT NULL,
    queue text DEFAULT 'default', priority integer DEFAULT 0, after interval DEFAULT '0',
    labels jsonb DEFAULT '{}', timeout interval DEFAULT NULL, stall_timeout interval DEFAULT NULL,
    max_attempts integer DEFAULT 1, backoff interval DEFAULT '10 seconds', crashes_max integer DEFAULT 3,
    no_retry integer[] DEFAULT '{}', purpose text DEFAULT NULL, env jsonb DEFAULT '{}', meta jsonb DEFAULT NULL,
    if_absent boolean DEFAULT false, again boolean DEFAULT false, submitted_by text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_run  runs;
    v_lane integer;
    v_now  timestamptz := clock_timestamp();
    v_event executor_instances;
    v_due  boolean := submit.after <= interval '0';
    -- Only a node that may start it has this as well: a row of a database is not a remote shell.
    v_requirements jsonb := submit.labels || CASE WHEN submit.command IS NULL THEN '{"systole:argv": "yes"}'
                                             ELSE jsonb_build_object('systole:command', submit.command) END;
BEGIN
    PERFORM submit_check(submit.run_id, submit.argv, submit.command, submit.queue, submit.priority, submit.after,
                         submit.labels, submit.env, submit.meta, submit.timeout, submit.stall_timeout, submit.max_attempts,
                         submit.backoff, submit.crashes_max);
    SELECT lane_id INTO v_lane FROM lanes WHERE queue = submit.queue AND requirements = v_requirements;
    IF NOT FOUND THEN
        INSERT INTO lanes (queue, requirements) VALUES (submit.queue, v_requirements) ON CONFLICT DO NOTHING;
        SELECT lane_id INTO STRICT v_lane FROM lanes WHERE queue = submit.queue AND requirements = v_requirements;
    END IF;

    LOOP
        INSERT INTO runs (run_id, status) VALUES (submit.run_id, 'QUEUED') ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT * INTO v_run FROM runs WHERE run_id = submit.run_id FOR NO KEY UPDATE;
        EXIT WHEN FOUND;  -- else it was pruned while we waited for its row
    END LOOP;
    IF v_run.run_id IS NOT NULL THEN
        IF v_run.status IN ('QUEUED', 'RUNNING') THEN
            IF submit.if_absent THEN
                RETURN false;
            END IF;
            RAISE EXCEPTION 'run "%" is % already', submit.run_id, v_run.status USING ERRCODE = 'object_in_use',
                HINT = 'Leave it alone with --if-absent (if_absent => true), or name another run.';
        ELSIF NOT submit.again THEN
            IF submit.if_absent THEN
                RETURN false;
            END IF;
            RAISE EXCEPTION 'run "%" has ended as %', submit.run_id, v_run.status USING ERRCODE = 'duplicate_object',
                HINT = 'Run it again with --again (again => true), or name another run.';
        END IF;
    END IF;
    UPDATE runs
       SET status = 'QUEUED', lane_id = v_lane, priority = submit.priority, purpose = coalesce(submit.purpose, purpose),
           available_at = v_now + submit.after,
           claim_order = CASE WHEN v_due THEN v_now - submit.priority * interval '1 minute' END,
           max_attempts = submit.max_attempts, failures = 0, crashes_max = submit.crashes_max, crashes = 0,
           backoff = submit.backoff, no_retry = submit.no_retry, timeout = submit.timeout, stall_timeout = submit.stall_timeout,
           updated_at = v_now
     WHERE run_id = submit.run_id;
    INSERT INTO run_specs (run_id, command, argv, env, meta) VALUES (submit.run_id, submit.command, submit.argv, submit.env, submit.meta)
        ON CONFLICT (run_id) DO UPDATE
        SET command = excluded.command, argv = excluded.argv, env = excluded.env, meta = excluded.meta;
    PERFORM append_event('submitted', submit.run_id, v_event, jsonb_build_object(
        'queue', submit.queue, 'priority', submit.priority, 'purpose', submit.purpose, 'command', submit.command,
        'available_at', CASE WHEN NOT v_due THEN v_now + submit.after END, 'submitted_by', submit.submitted_by));
    IF v_due THEN
        -- All runs of one transaction and queue are one notification.
        PERFORM pg_notify(current_schema(), 'queued ' || submit.queue);
    END IF;
    RETURN true;
END
$$;

-- submit_all(): many at once, all or nothing. Each is an object of submit()'s arguments, with durations in seconds, and may name
-- the line of the file that it stands on: an error then names it as well.
CREATE OR REPLACE FUNCTION submit_all(
    p_specs jsonb, p_if_absent boolean, p_again boolean, p_submitted_by text, OUT queued integer, OUT left_alone integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_spec    jsonb;
    v_state   text;
    v_message text;
BEGIN
    queued := 0;
    left_alone := 0;
    FOR v_spec IN SELECT value FROM jsonb_array_elements(p_specs) LOOP
        IF submit(
            v_spec->>'run_id',
            argv => CASE WHEN v_spec ? 'argv' THEN ARRAY(SELECT jsonb_array_elements_text(v_spec->'argv')) END,
            command => v_spec->>'command', queue => v_spec->>'queue', priority => (v_spec->>'priority')::integer,
            after => make_interval(secs => (v_spec->>'after')::float8), labels => v_spec->'labels',
            timeout => make_interval(secs => (v_spec->>'timeout')::float8),
            stall_timeout => make_interval(secs => (v_spec->>'stall_timeout')::float8),
            max_attempts => (v_spec->>'max_attempts')::integer,
            backoff => make_interval(secs => (v_spec->>'backoff')::float8),
            crashes_max => (v_spec->>'crashes_max')::integer,
            no_retry => ARRAY(SELECT jsonb_array_elements_text(v_spec->'no_retry')::integer),
            purpose => v_spec->>'purpose', env => v_spec->'env', meta => nullif(v_spec->'meta', 'null'),
            if_absent => p_if_absent, again => p_again, submitted_by => p_submitted_by)
        THEN
            queued := queued + 1;
        ELSE
            left_alone := left_alone + 1;
        END IF;
    END LOOP;
EXCEPTION WHEN invalid_parameter_value OR object_in_use OR duplicate_object OR check_violation THEN
    GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
    RAISE EXCEPTION '%', coalesce('line ' || (v_spec->>'line') || ': ', '') || v_message USING ERRCODE = v_state;
END
$$;
