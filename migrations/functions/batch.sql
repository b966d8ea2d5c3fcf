-- join_batch(): the runs that a `systole supervise` works on, wherever it is started: each is queued once for its batch, for
-- supervisors of that batch alone. What a lane of theirs requires is a command that only they know: each starts its own.
--
-- A batch is named (p_commit is NULL), or known by the digest of what it is: then it is one of each day and commit, unless something is
-- left of an earlier one, or, with p_retry, has ended there without completing. Its runs begin at one commit, `base` if that is known. A run that is in the batch stays as it is, but for one
-- that has ended without completing, with p_retry; one that has ended elsewhere is queued anew. Raises object_in_use, and queues
-- nothing, over one that somebody else has queued or runs.
CREATE OR REPLACE FUNCTION join_batch(
    p_batch text, p_commit text, p_specs jsonb, p_retry boolean, p_detail jsonb, p_by text,
    OUT batch text, OUT queued integer, OUT ended integer, OUT base text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_queue CONSTANT text := 'supervise';
    v_ids   text[] := ARRAY(SELECT s->>'run_id' FROM jsonb_array_elements(p_specs) AS s);
    v_new   text[] := '{}';
    v_now   timestamptz := clock_timestamp();
    v_one   record;
BEGIN
    -- Two that begin the same one at once.
    PERFORM pg_advisory_xact_lock(hashtextextended('systole batch ' || current_schema() || ' ' || p_batch, 0));
    batch := p_batch;
    IF p_commit IS NOT NULL THEN
        SELECT substr(l.requirements->>'systole:command', length('batch:') + 1) INTO batch
          FROM runs r JOIN lanes l USING (lane_id)
         WHERE r.run_id = ANY (v_ids) AND (r.status IN ('QUEUED', 'RUNNING') OR p_retry AND r.status <> 'COMPLETED')
           AND l.queue = v_queue AND l.requirements->>'systole:command' LIKE 'batch:%-' || p_batch || '-%'
         ORDER BY l.lane_id DESC LIMIT 1;
        batch := coalesce(batch, concat_ws('-', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD'), p_batch, p_commit));
    END IF;

    -- What is left of it begins where the rest has begun; what is run again on purpose may have been mended since.
    IF NOT p_retry THEN
        SELECT e.detail->>'base' INTO base
          FROM (SELECT r.run_id FROM runs r JOIN lanes l USING (lane_id)
                 WHERE r.run_id = ANY (v_ids) AND r.status IN ('QUEUED', 'RUNNING')
                   AND l.queue = v_queue AND l.requirements->>'systole:command' = 'batch:' || batch
                 ORDER BY r.run_id LIMIT 1) r
         CROSS JOIN LATERAL (SELECT * FROM run_events e WHERE e.run_id = r.run_id AND e.kind = 'supervised' ORDER BY e.id DESC LIMIT 1) e;
    END IF;

    -- Nothing is locked of what stays as it is, and what is queued is in the order of its keys: so nobody waits for each other.
    FOR v_one IN
        SELECT s.spec, r.run_id, r.status, coalesce(l.queue = v_queue AND l.requirements->>'systole:command' = 'batch:' || batch, false) AS is_in,
               CASE WHEN l.queue = v_queue THEN replace(l.requirements->>'systole:command', 'batch:', 'batch ') ELSE 'queue ' || l.queue END AS place
          FROM jsonb_array_elements(p_specs) AS s (spec)
          LEFT JOIN LATERAL (SELECT * FROM runs WHERE run_id = s.spec->>'run_id' OFFSET 0) r ON true
          LEFT JOIN lanes l USING (lane_id)
         ORDER BY s.spec->>'run_id' COLLATE "C"
    LOOP
        IF v_one.status IN ('QUEUED', 'RUNNING') AND NOT v_one.is_in THEN
            RAISE EXCEPTION 'run "%" is % already%', v_one.run_id, v_one.status, coalesce(' in ' || v_one.place, '')
                USING ERRCODE = 'object_in_use';
        END IF;
        IF v_one.run_id IS NULL OR NOT v_one.is_in OR (p_retry AND v_one.status NOT IN ('QUEUED', 'RUNNING', 'COMPLETED')) THEN
            PERFORM submit(
                v_one.spec->>'run_id', command => 'batch:' || batch, queue => v_queue,
                timeout => make_interval(secs => (v_one.spec->>'timeout')::float8),
                stall_timeout => make_interval(secs => (v_one.spec->>'stall_timeout')::float8),
                max_attempts => (v_one.spec->>'max_attempts')::integer,
                backoff => make_interval(secs => (v_one.spec->>'backoff')::float8),
                crashes_max => (v_one.spec->>'crashes_max')::integer,
                no_retry => ARRAY(SELECT jsonb_array_elements_text(v_one.spec->'no_retry')::integer),
                purpose => v_one.spec->>'purpose', env => v_one.spec->'env', again => true, submitted_by => p_by);
            v_new := v_new || (v_one.spec->>'run_id');
        END IF;
    END LOOP;
    queued := cardinality(v_new);
    -- They begin in the order of the list.
    UPDATE runs r SET claim_order = v_now + w.n * interval '1 microsecond'
      FROM unnest(v_ids) WITH ORDINALITY AS w (run_id, n)
     WHERE r.run_id = w.run_id AND w.run_id = ANY (v_new);

    SELECT count(*) FILTER (WHERE r.status NOT IN ('QUEUED', 'RUNNING')) INTO ended FROM runs r WHERE r.run_id = ANY (v_ids);
    INSERT INTO run_events (run_id, kind, detail)
    SELECT r.run_id, 'supervised', jsonb_strip_nulls(p_detail || jsonb_build_object('batch', batch, 'supervised_by', p_by, 'base', coalesce(base, p_detail->>'base')))
      FROM runs r WHERE r.run_id = ANY (v_ids) AND r.status IN ('QUEUED', 'RUNNING') ORDER BY r.run_id;
END
$$;

-- cancel_batch(): takes all out of the queue that is left of a batch, and asks the executors of what runs to stop it. NULL if there is no
-- such batch.
CREATE OR REPLACE FUNCTION cancel_batch(
    p_batch text, p_by text, p_reason text, OUT cancelled integer, OUT stopping text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    v_lane integer := (SELECT lane_id FROM lanes
                        WHERE queue = 'supervise' AND requirements = jsonb_build_object('systole:command', 'batch:' || p_batch));
BEGIN
    IF v_lane IS NULL THEN
        RETURN;
    END IF;
    PERFORM lock_briefly();
    -- Each half has an index of its own.
    WITH waiting AS MATERIALIZED (
        SELECT run_id FROM runs WHERE lane_id = v_lane AND status = 'QUEUED' AND claim_order IS NOT NULL
         UNION ALL
        SELECT run_id FROM runs WHERE lane_id = v_lane AND status = 'QUEUED' AND claim_order IS NULL
    ), locked AS MATERIALIZED (
        SELECT r.run_id FROM runs r JOIN waiting w USING (run_id) WHERE r.status = 'QUEUED' AND r.lane_id = v_lane ORDER BY r.run_id FOR NO KEY UPDATE OF r
    ), gone AS (
        UPDATE runs r SET status = 'CANCELLED', updated_at = clock_timestamp() FROM locked l WHERE r.run_id = l.run_id RETURNING r.run_id
    ), told AS (
        INSERT INTO run_events (run_id, kind, detail)
        SELECT g.run_id, 'cancelled', jsonb_strip_nulls(jsonb_build_object('cancelled_by', p_by, 'reason', p_reason, 'batch', p_batch))
          FROM gone g RETURNING 1
    )
    SELECT count(*) INTO cancelled FROM told;
    SELECT coalesce(array_agg(r.run_id), '{}') INTO stopping
      FROM (SELECT i.run_id FROM executor_instances i JOIN runs r USING (run_id)
             WHERE i.status = 'RUNNING' AND r.lane_id = v_lane ORDER BY i.run_id) r
     CROSS JOIN LATERAL request_stop(r.run_id, p_by, p_reason) AS asked
     WHERE asked.verdict = 'ok';
END
$$;
