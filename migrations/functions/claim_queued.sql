-- claim_queued(): as many queued runs as a node has free slots, out of the lanes that it can serve, the lowest claim_order first.
--
-- One instance id, and the hash of one secret, for each free slot. Asked again with the same ids after an ambiguous answer, it
-- returns what those were granted, and grants only what is left. Runs that somebody else is claiming are skipped, never waited
-- for. A run whose last holder was revoked and may still be at work is left alone.
CREATE OR REPLACE FUNCTION claim_queued(
    p_lanes integer[], p_instance_ids uuid[], p_death_secret_hashes bytea[],
    p_executor_id text, p_host text, p_pid integer, p_boot_id text, p_pid_namespace text, p_process_started bigint,
    p_containment text, p_stale_after_ms bigint
) RETURNS TABLE (
    run_id text, instance_id uuid, fence bigint, attempt integer, predecessor jsonb, purpose text,
    timeout_seconds float8, stall_timeout_seconds float8, command text, argv text[], env jsonb
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_settings settings;
    v_now      timestamptz := clock_timestamp();
    v_free     integer;
BEGIN
    SELECT * INTO STRICT v_settings FROM settings;
    IF p_stale_after_ms * interval '1 millisecond' > v_settings.stale_after_max THEN
        RAISE EXCEPTION 'stale_after of % ms is above this fleet''s maximum of %', p_stale_after_ms, v_settings.stale_after_max
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT count(*) INTO v_free FROM unnest(p_instance_ids) AS id
     WHERE NOT EXISTS (SELECT FROM executor_instances i WHERE i.instance_id = id);

    -- What has come due, some of it at a time.
    UPDATE runs r SET claim_order = r.available_at - r.priority * interval '1 minute'
     WHERE r.run_id IN (SELECT c.run_id FROM runs c
                         WHERE c.status = 'QUEUED' AND c.claim_order IS NULL AND c.available_at <= v_now
                         ORDER BY c.available_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED);

    IF v_free > 0 THEN
        PERFORM commit_durably();
        WITH free AS (
            SELECT id, hash, row_number() OVER () AS n FROM unnest(p_instance_ids, p_death_secret_hashes) AS f (id, hash)
             WHERE NOT EXISTS (SELECT FROM executor_instances i WHERE i.instance_id = f.id)
        ), limited AS MATERIALIZED (
            -- Its row is the lock under which its runs are counted. Whoever does not get it looks again next time.
            SELECT q.queue, q.paused_at, q.running_max FROM queues q
             WHERE q.running_max IS NOT NULL AND q.queue IN (SELECT l.queue FROM lanes l WHERE l.lane_id = ANY (p_lanes))
               FOR UPDATE SKIP LOCKED
        ), open AS MATERIALIZED (
            SELECT l.lane_id, l.queue,
                   CASE WHEN q.running_max IS NULL THEN v_free ELSE
                       q.running_max - (SELECT count(*) FROM runs r JOIN lanes o USING (lane_id)
                                         WHERE r.status = 'RUNNING' AND o.queue = l.queue) END AS room
              FROM lanes l
              LEFT JOIN queues q USING (queue)
             WHERE l.lane_id = ANY (p_lanes) AND q.paused_at IS NULL
               AND (q.running_max IS NULL OR l.queue IN (SELECT queue FROM limited))
        ), locked AS MATERIALIZED (
            SELECT next.run_id, next.claim_order, o.queue, o.room FROM open o
             CROSS JOIN LATERAL (
                SELECT r.run_id, r.claim_order FROM runs r
                 WHERE r.lane_id = o.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
                   AND NOT EXISTS (SELECT FROM executor_instances b WHERE b.run_id = r.run_id AND b.bars_successor)
                 ORDER BY r.claim_order LIMIT least(v_free, o.room) FOR NO KEY UPDATE SKIP LOCKED) AS next
             WHERE o.room > 0
        ), picked AS MATERIALIZED (
            SELECT c.run_id, row_number() OVER (ORDER BY c.claim_order, c.run_id) AS n
              FROM (SELECT l.*, row_number() OVER (PARTITION BY l.queue ORDER BY l.claim_order) AS within FROM locked l) c
             WHERE c.within <= c.room
             ORDER BY c.claim_order, c.run_id LIMIT v_free
        ), moved AS (
            UPDATE runs r
               SET status = 'RUNNING', attempt = r.attempt + 1, updated_at = v_now,
                   fence = greatest(r.fence, v_settings.fence_floor, floor(extract(epoch FROM v_now) * 1000000)::bigint - 1) + 1
              FROM picked p WHERE r.run_id = p.run_id AND r.status = 'QUEUED'
            RETURNING r.run_id, r.attempt, r.fence, r.purpose, p.n
        ), granted AS (
            INSERT INTO executor_instances
                (instance_id, run_id, attempt, fence, status, executor_id, host, pid, boot_id, pid_namespace, process_started,
                 containment, purpose, stale_after, death_secret_hash, started_at, last_heartbeat)
            SELECT f.id, m.run_id, m.attempt, m.fence, 'RUNNING', p_executor_id, p_host, p_pid, p_boot_id, p_pid_namespace,
                   p_process_started, p_containment, m.purpose, p_stale_after_ms * interval '1 millisecond', f.hash, v_now, v_now
              FROM moved m JOIN free f USING (n)
            RETURNING *
        )
        INSERT INTO run_events (run_id, kind, instance_id, executor_id, fence, detail)
        SELECT g.run_id, 'claimed', g.instance_id, g.executor_id, g.fence, jsonb_strip_nulls(jsonb_build_object(
                   'attempt', g.attempt, 'purpose', g.purpose, 'containment', g.containment,
                   'predecessor', b.executor_id, 'predecessor_cause', b.cause))
          FROM granted g
          LEFT JOIN executor_instances b ON b.run_id = g.run_id AND b.attempt = g.attempt - 1 AND b.status = 'CRASHED';
    END IF;

    -- Seen afresh: a run may have been claimed, taken away by force and queued again since our look at it.
    IF EXISTS (SELECT FROM executor_instances g JOIN executor_instances b USING (run_id)
                WHERE g.instance_id = ANY (p_instance_ids) AND b.bars_successor) THEN
        RAISE EXCEPTION 'a run was taken away by force while it was being claimed: ask again' USING ERRCODE = 'serialization_failure';
    END IF;

    RETURN QUERY
        SELECT i.run_id, i.instance_id, i.fence, i.attempt,
               CASE WHEN b.instance_id IS NOT NULL THEN holder(b, v_now) END, i.purpose,
               extract(epoch FROM r.timeout)::float8, extract(epoch FROM r.stall_timeout)::float8, s.command, s.argv, s.env
          FROM executor_instances i
          JOIN runs r ON r.run_id = i.run_id
          LEFT JOIN run_specs s ON s.run_id = i.run_id
          LEFT JOIN executor_instances b ON b.run_id = i.run_id AND b.attempt = i.attempt - 1 AND b.status = 'CRASHED'
         WHERE i.instance_id = ANY (p_instance_ids) AND i.status = 'RUNNING';
END
$$;
