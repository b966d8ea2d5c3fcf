-- claim_queued(): as many queued runs as an executor has free slots, of those that it can serve, the lowest claim_order first.
--
-- One instance id, and the hash of one secret, for each free slot. Asked again with the same ids after an ambiguous answer, it
-- returns what those were granted, and grants only what is left; with no queues it grants nothing new. Runs that somebody
-- else is claiming, or has changed since they were looked at, are skipped, never waited for. A run whose last holder was revoked and may still be at work is left alone,
-- and in a quarantine (history.sql) all are. Behind a crash it is a takeover, unless somebody has queued the run anew since, which
-- has set its count of crashes to zero: then it is told of its predecessor as well, and begins afresh.
DROP FUNCTION IF EXISTS claim_queued(
    integer[], uuid[], bytea[], text, text, integer, text, text, bigint, text, bigint);
-- An earlier one told less.
DROP FUNCTION IF EXISTS claim_queued(
    text[], jsonb, text[], boolean, uuid[], bytea[], text, text, integer, text, text, bigint, text, bigint, text);
CREATE OR REPLACE FUNCTION claim_queued(
    p_queues text[], p_labels jsonb, p_commands text[], p_starts_anything boolean,
    p_instance_ids uuid[], p_death_secret_hashes bytea[],
    p_executor_id text, p_host text, p_pid integer, p_boot_id text, p_pid_namespace text, p_process_started bigint,
    p_containment text, p_stale_after_ms bigint, p_version text
) RETURNS TABLE (
    run_id text, instance_id uuid, fence bigint, attempt integer, predecessor jsonb, purpose text,
    timeout_seconds float8, stall_timeout_seconds float8, command text, argv text[], env jsonb, meta jsonb,
    queue text, waited_seconds float8
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_settings settings;
    v_now      timestamptz := clock_timestamp();
    v_slots    integer[];  -- which of p_instance_ids are free
    v_free     integer;
    v_limited  text[];     -- queues with a limit, whose runs we may count
    v_come_due boolean;
    v_waiting  boolean;
BEGIN
    SELECT * INTO STRICT v_settings FROM settings;
    PERFORM refuse_unfit(v_settings, p_stale_after_ms, p_version);
    SELECT array_agg(s.n) INTO v_slots FROM unnest(p_instance_ids) WITH ORDINALITY AS s (id, n)
     WHERE NOT EXISTS (SELECT FROM executor_instances i WHERE i.instance_id = s.id OFFSET 0);
    v_free := coalesce(cardinality(v_slots), 0);

    -- What was granted before.
    IF v_free < cardinality(p_instance_ids) THEN
        RETURN QUERY
            SELECT i.run_id, i.instance_id, i.fence, i.attempt,
                   CASE WHEN (b.p).cause IS NOT NULL THEN holder(b.p, v_now) || jsonb_build_object('afresh', r.crashes = 0) END, i.purpose,
                   extract(epoch FROM r.timeout)::float8, extract(epoch FROM r.stall_timeout)::float8,
                   s.command, s.argv, s.env, s.meta, l.queue, extract(epoch FROM i.started_at - r.available_at)::float8
              FROM executor_instances i
             CROSS JOIN LATERAL (SELECT * FROM runs r WHERE r.run_id = i.run_id OFFSET 0) r
             CROSS JOIN LATERAL (SELECT l.queue FROM lanes l WHERE l.lane_id = r.lane_id OFFSET 0) l
              LEFT JOIN LATERAL (SELECT * FROM run_specs s WHERE s.run_id = i.run_id OFFSET 0) s ON true
              LEFT JOIN LATERAL (SELECT p FROM executor_instances p
                                  WHERE p.run_id = i.run_id AND p.attempt = i.attempt - 1 AND p.cause IS NOT NULL OFFSET 0) b ON true
             WHERE i.instance_id = ANY (p_instance_ids) AND i.ended_at IS NULL;
    END IF;

    -- Most who ask find nothing: only to begin the statement that claims costs more than all the rest.
    SELECT EXISTS (SELECT FROM runs c WHERE c.status = 'QUEUED' AND c.claim_order IS NULL AND c.available_at <= v_now),
           EXISTS (SELECT FROM lanes l
                    CROSS JOIN LATERAL (SELECT FROM runs r
                                         WHERE r.lane_id = l.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL LIMIT 1) waiting
                    WHERE l.queue = ANY (p_queues))
      INTO v_come_due, v_waiting;

    -- What has come due, some of it at a time.
    IF v_come_due THEN
        UPDATE runs r SET claim_order = r.available_at - r.priority * interval '1 minute'
         WHERE r.ctid = ANY (ARRAY(SELECT c.ctid FROM runs c
                                    WHERE c.status = 'QUEUED' AND c.claim_order IS NULL AND c.available_at <= v_now
                                    ORDER BY c.available_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED));
    END IF;

    IF v_free > 0 AND quarantine(v_settings) IS NULL AND (v_come_due OR v_waiting) THEN
        PERFORM commit_durably();
        -- The row of a limited queue is the lock under which its runs are counted, by a statement that begins when it is held.
        -- Whoever does not get it looks again next time. Where nothing waits, nothing is counted.
        v_limited := ARRAY(SELECT q.queue FROM queues q
                            WHERE q.running_max IS NOT NULL AND q.queue = ANY (p_queues)
                              AND EXISTS (SELECT FROM lanes l
                                           CROSS JOIN LATERAL (SELECT FROM runs r
                                                                WHERE r.lane_id = l.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
                                                                LIMIT 1) waiting
                                           WHERE l.queue = q.queue OFFSET 0)
                              FOR UPDATE SKIP LOCKED);
        RETURN QUERY
        WITH served AS MATERIALIZED (
            SELECT l.lane_id, l.queue FROM lanes l
             WHERE l.queue = ANY (p_queues) AND has_labels(p_labels, l.requirements)
               AND may_start(p_commands, p_starts_anything, l.requirements)
        ), rooms AS MATERIALIZED (
            SELECT s.queue, CASE WHEN q.running_max IS NULL THEN v_free ELSE
                       q.running_max - (SELECT count(*) FROM executor_instances i
                                         CROSS JOIN LATERAL (SELECT r.lane_id FROM runs r WHERE r.run_id = i.run_id OFFSET 0) r
                                         CROSS JOIN LATERAL (SELECT FROM lanes o WHERE o.lane_id = r.lane_id AND o.queue = s.queue OFFSET 0) o
                                         WHERE i.status = 'RUNNING') END AS room
              FROM (SELECT DISTINCT queue FROM served) s
              LEFT JOIN queues q USING (queue)
             WHERE q.paused_at IS NULL AND (q.running_max IS NULL OR s.queue = ANY (v_limited))
        ), open AS MATERIALIZED (
            SELECT s.lane_id, s.queue, r.room FROM served s JOIN rooms r USING (queue)
        ), locked AS MATERIALIZED (
            SELECT next.*, o.queue, o.room FROM open o
             CROSS JOIN LATERAL (
                SELECT r.ctid AS at, r.run_id, r.claim_order FROM runs r
                 WHERE r.lane_id = o.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
                   AND NOT EXISTS (SELECT FROM executor_instances b WHERE b.run_id = r.run_id AND b.bars_successor OFFSET 0)
                 ORDER BY r.claim_order LIMIT least(v_free, o.room) FOR NO KEY UPDATE SKIP LOCKED) AS next
             WHERE o.room > 0
        ), picked AS MATERIALIZED (
            SELECT c.at, c.queue, row_number() OVER (ORDER BY c.claim_order, c.run_id) AS n
              FROM (SELECT l.*, row_number() OVER (PARTITION BY l.queue ORDER BY l.claim_order) AS within FROM locked l) c
             WHERE c.within <= c.room
             ORDER BY c.claim_order, c.run_id LIMIT v_free
        ), moved AS (
            UPDATE runs r
               SET status = 'RUNNING', attempt = r.attempt + 1, updated_at = v_now,
                   fence = greatest(r.fence, (SELECT s.fence_floor FROM settings s), floor(extract(epoch FROM v_now) * 1000000)::bigint - 1) + 1
              FROM picked p WHERE r.ctid = p.at
            RETURNING r.run_id, r.attempt, r.fence, r.purpose, r.timeout, r.stall_timeout, r.available_at, r.crashes = 0 AS afresh,
                      p.queue, p_instance_ids[v_slots[p.n]] AS instance_id, p_death_secret_hashes[v_slots[p.n]] AS death_secret_hash
        ), granted AS (
            INSERT INTO executor_instances
                (instance_id, run_id, attempt, fence, status, executor_id, host, pid, boot_id, pid_namespace, process_started,
                 containment, purpose, stale_after, death_secret_hash, started_at, last_heartbeat)
            SELECT m.instance_id, m.run_id, m.attempt, m.fence, 'RUNNING', p_executor_id, p_host, p_pid, p_boot_id,
                   p_pid_namespace, p_process_started, p_containment, m.purpose, p_stale_after_ms * interval '1 millisecond',
                   m.death_secret_hash, v_now, v_now
              FROM moved m
        ), succeeding AS MATERIALIZED (
            SELECT m.*, b.p AS predecessor
              FROM moved m
              LEFT JOIN LATERAL (SELECT p FROM executor_instances p
                                  WHERE m.attempt > 1 AND p.run_id = m.run_id AND p.attempt = m.attempt - 1 AND p.cause IS NOT NULL
                                 OFFSET 0) b ON true
        ), noted AS (
            INSERT INTO incidents (kind, cause)
            SELECT 'takeover', (s.predecessor).cause FROM succeeding s WHERE (s.predecessor).cause IS NOT NULL AND NOT s.afresh
        ), told AS (
            INSERT INTO run_events (run_id, kind, instance_id, executor_id, fence, detail)
            SELECT s.run_id, 'claimed', s.instance_id, p_executor_id, s.fence, jsonb_strip_nulls(jsonb_build_object(
                       'attempt', s.attempt, 'purpose', s.purpose, 'containment', p_containment,
                       'predecessor', (s.predecessor).executor_id, 'predecessor_cause', (s.predecessor).cause,
                       'afresh', CASE WHEN (s.predecessor).cause IS NOT NULL AND s.afresh THEN true END))
              FROM succeeding s
        )
        SELECT s.run_id, s.instance_id, s.fence, s.attempt,
               CASE WHEN (s.predecessor).cause IS NOT NULL
                    THEN holder(s.predecessor, v_now) || jsonb_build_object('afresh', s.afresh) END, s.purpose,
               extract(epoch FROM s.timeout)::float8, extract(epoch FROM s.stall_timeout)::float8,
               d.command, d.argv, d.env, d.meta, s.queue, extract(epoch FROM v_now - s.available_at)::float8
          FROM succeeding s
          LEFT JOIN LATERAL (SELECT d.command, d.argv, d.env, d.meta FROM run_specs d WHERE d.run_id = s.run_id OFFSET 0) d ON true;
    END IF;

    -- Seen afresh: a run may have been claimed, taken away by force and queued again since our look at it.
    IF EXISTS (SELECT FROM executor_instances b WHERE b.bars_successor)
       AND EXISTS (SELECT FROM executor_instances b
                    WHERE b.bars_successor
                      AND b.run_id = ANY (ARRAY(SELECT g.run_id FROM executor_instances g WHERE g.instance_id = ANY (p_instance_ids) AND g.ended_at IS NULL))) THEN
        RAISE EXCEPTION 'a run was taken away by force while it was being claimed: ask again' USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;
