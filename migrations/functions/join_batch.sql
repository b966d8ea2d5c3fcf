-- join_batch(): the runs that a `systole supervise` works on, wherever it is started: each is queued once for its batch, for
-- supervisors of that batch alone. What a lane of theirs requires is a command that only they know: each starts its own.
--
-- A batch is named (p_is_made false), or known by the digest of what it is: then the first of each day begins one, and whoever
-- comes later works on that, as on one of an earlier day of which something is left. A run that is in the batch stays as it is, but for
-- one that has not completed, with p_retry; one that has ended in another way is queued anew. Raises object_in_use, and
-- queues nothing, over one that somebody else has queued or runs.
CREATE OR REPLACE FUNCTION join_batch(
    p_batch text, p_is_made boolean, p_specs jsonb, p_retry boolean, p_detail jsonb, p_by text,
    OUT batch text, OUT queued integer
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_queue CONSTANT text := 'supervise';
    v_ids  text[] := ARRAY(SELECT s->>'run_id' FROM jsonb_array_elements(p_specs) AS s);
    v_run  record;
    v_spec jsonb;
    v_none executor_instances;
BEGIN
    -- Two that begin the same one at once.
    PERFORM pg_advisory_xact_lock(hashtextextended('systole batch ' || current_schema() || ' ' || p_batch, 0));
    queued := 0;
    batch := p_batch;
    IF p_is_made THEN
        SELECT substr(l.requirements->>'systole:command', length('batch:') + 1) INTO batch
          FROM runs r JOIN lanes l USING (lane_id)
         WHERE r.run_id = ANY (v_ids) AND r.status IN ('QUEUED', 'RUNNING')
           AND l.queue = v_queue AND l.requirements->>'systole:command' LIKE 'batch:%-' || p_batch
         ORDER BY l.lane_id LIMIT 1;
        batch := coalesce(batch, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD') || '-' || p_batch);
    END IF;
    FOR v_spec IN SELECT value FROM jsonb_array_elements(p_specs) LOOP
        SELECT r.run_id, r.status, coalesce(l.queue = v_queue AND l.requirements->>'systole:command' = 'batch:' || batch, false) AS is_in,
               CASE WHEN l.queue = v_queue THEN replace(l.requirements->>'systole:command', 'batch:', 'batch ') ELSE 'queue ' || l.queue END AS place
          INTO v_run
          FROM runs r LEFT JOIN lanes l USING (lane_id) WHERE r.run_id = v_spec->>'run_id' FOR NO KEY UPDATE OF r;
        IF v_run.status IN ('QUEUED', 'RUNNING') AND NOT v_run.is_in THEN
            RAISE EXCEPTION 'run "%" is % already%', v_run.run_id, v_run.status,
                coalesce(' in ' || v_run.place, '') USING ERRCODE = 'object_in_use';
        END IF;
        IF v_run.run_id IS NULL OR NOT v_run.is_in OR (p_retry AND v_run.status NOT IN ('QUEUED', 'RUNNING', 'COMPLETED')) THEN
            PERFORM submit(
                v_spec->>'run_id', command => 'batch:' || batch, queue => v_queue,
                timeout => make_interval(secs => (v_spec->>'timeout')::float8),
                stall_timeout => make_interval(secs => (v_spec->>'stall_timeout')::float8),
                max_attempts => (v_spec->>'max_attempts')::integer,
                backoff => make_interval(secs => (v_spec->>'backoff')::float8),
                crashes_max => (v_spec->>'crashes_max')::integer,
                no_retry => ARRAY(SELECT jsonb_array_elements_text(v_spec->'no_retry')::integer),
                purpose => v_spec->>'purpose', env => v_spec->'env', again => true, submitted_by => p_by);
            queued := queued + 1;
        ELSIF v_run.status NOT IN ('QUEUED', 'RUNNING') THEN
            CONTINUE;
        END IF;
        PERFORM append_event('supervised', v_spec->>'run_id', v_none,
                             p_detail || jsonb_build_object('batch', batch, 'supervised_by', p_by));
    END LOOP;
END
$$;
