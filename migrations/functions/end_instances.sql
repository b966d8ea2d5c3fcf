-- end_instances(): the one place where instances leave RUNNING. The caller holds the locks on their runs and on them.
--
-- One status, exit code, cause, progress and detail for each id; an id that is NULL is passed over. Moves the runs on, and
-- writes the events named after the ends. A run by hand ends with its instance. One from the queue goes back there when
-- it was given back, crashed or may be retried: a crash and a failure each have a count and a limit of their own, a release
-- has neither. A crash is an incident as well (incidents.sql). One that is to be restarted goes back whatever stopped it. A retry waits for its backoff, exponential with
-- full jitter and at most an hour; anything else is due at once.
DROP FUNCTION IF EXISTS end_instance(uuid, text, integer, text, bigint, jsonb);
CREATE OR REPLACE FUNCTION end_instances(
    p_instance_ids uuid[], p_statuses text[], p_exit_codes integer[], p_causes text[], p_phases bigint[], p_details jsonb[]
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_ended integer;
BEGIN
    WITH said AS MATERIALIZED (
        SELECT i.at, s.status, s.exit_code, s.cause, s.phases, s.detail
          FROM unnest(p_instance_ids, p_statuses, p_exit_codes, p_causes, p_phases, p_details)
                   AS s (instance_id, status, exit_code, cause, phases, detail)
         CROSS JOIN LATERAL (SELECT e.ctid AS at FROM executor_instances e
                              WHERE e.instance_id = s.instance_id AND e.ended_at IS NULL OFFSET 0) i
    ), ended AS (
        UPDATE executor_instances i
           SET status = s.status, exit_code = s.exit_code, cause = s.cause,
               ended_at = greatest(clock_timestamp(), i.started_at),
               phases_executed = greatest(i.phases_executed, s.phases),
               message = coalesce(left(s.detail->>'message', 200), i.message)
          -- The caller's locks keep each row where it is, and as it is.
          FROM said s WHERE i.ctid = s.at
        RETURNING i.instance_id, i.run_id, i.attempt, i.executor_id, i.host, i.fence, i.status, i.exit_code, i.cause, s.detail
    ), judged AS MATERIALIZED (
        SELECT e.*, r.at, r.is_queued, r.failures, r.crashes, n.next, w.wait
          FROM ended e
         CROSS JOIN LATERAL (
            SELECT r.ctid AS at, r.lane_id IS NOT NULL AS is_queued, r.restart_requested, r.no_retry, r.max_attempts, r.crashes_max,
                   r.backoff, r.failures + CASE WHEN e.status IN ('FAILED', 'TIMED_OUT') THEN 1 ELSE 0 END AS failures,
                   r.crashes + CASE WHEN e.status = 'CRASHED' THEN 1 ELSE 0 END AS crashes
              FROM runs r WHERE r.run_id = e.run_id OFFSET 0) r
         CROSS JOIN LATERAL (
            SELECT CASE
                WHEN NOT r.is_queued
                    THEN CASE e.status WHEN 'TIMED_OUT' THEN 'FAILED' WHEN 'RELEASED' THEN 'CANCELLED' ELSE e.status END
                WHEN e.status = 'RELEASED' OR r.restart_requested AND e.status <> 'COMPLETED' THEN 'QUEUED'
                WHEN e.status = 'CRASHED' THEN CASE WHEN r.crashes >= r.crashes_max THEN 'FAILED' ELSE 'QUEUED' END
                WHEN e.status IN ('FAILED', 'TIMED_OUT')
                    THEN CASE WHEN r.failures >= r.max_attempts OR coalesce(e.exit_code = ANY (r.no_retry), false)
                              THEN 'FAILED' ELSE 'QUEUED' END
                ELSE e.status END AS next OFFSET 0) n
         CROSS JOIN LATERAL (
            SELECT CASE WHEN n.next = 'QUEUED' AND e.status IN ('FAILED', 'TIMED_OUT') AND NOT r.restart_requested
                THEN random() * retry_bound(r.backoff, r.failures) ELSE interval '0' END AS wait OFFSET 0) w
    ), moved AS (
        UPDATE runs r
           SET status = j.next, restart_requested = false,
               failures = CASE WHEN j.is_queued AND NOT r.restart_requested THEN j.failures ELSE r.failures END,
               crashes = CASE WHEN j.is_queued AND NOT r.restart_requested THEN j.crashes ELSE r.crashes END,
               available_at = CASE WHEN j.next = 'QUEUED' THEN clock_timestamp() + j.wait ELSE r.available_at END,
               claim_order = CASE WHEN j.wait > interval '0' THEN NULL ELSE r.claim_order END,
               updated_at = clock_timestamp()
          -- Of what is joined to an update, each row is kept whole.
          FROM (SELECT at, next, is_queued, failures, crashes, wait FROM judged OFFSET 0) j WHERE r.ctid = j.at
    ), noted AS (
        INSERT INTO incidents (kind, host, cause, executor_id)
        SELECT 'crash', s.host, s.cause, s.executor_id FROM judged s WHERE s.status = 'CRASHED'
    ), given_up AS (
        INSERT INTO poisoned (run_id) SELECT s.run_id FROM judged s WHERE s.status = 'CRASHED' AND s.next = 'FAILED'
            ON CONFLICT (run_id) DO UPDATE SET at = clock_timestamp()
    )
    INSERT INTO run_events (run_id, kind, instance_id, executor_id, fence, detail)
    SELECT s.run_id, lower(s.status), s.instance_id, s.executor_id, s.fence,
           jsonb_strip_nulls(coalesce(s.detail, '{}') || jsonb_build_object(
               'attempt', s.attempt, 'exit_code', s.exit_code, 'cause', s.cause,
               'run', CASE WHEN s.is_queued THEN s.next END,
               'poison', CASE WHEN s.status = 'CRASHED' AND s.next = 'FAILED' THEN true END,
               'retry_in_seconds', CASE WHEN s.wait > interval '0' THEN round(extract(epoch FROM s.wait)::numeric, 1) END))
      FROM judged s;
    GET DIAGNOSTICS v_ended = ROW_COUNT;
    IF v_ended <> (SELECT count(id) FROM unnest(p_instance_ids) AS id) THEN
        RAISE EXCEPTION 'of the instances % only % were RUNNING', p_instance_ids, v_ended;
    END IF;
END
$$;

-- retry_bound(): the longest that the retry after this failure may have to wait; it is drawn from 0 to that.
CREATE OR REPLACE FUNCTION retry_bound(p_backoff interval, p_failures integer) RETURNS interval
LANGUAGE sql IMMUTABLE AS $$
    -- Bounded before it is multiplied as well: an interval too long for PostgreSQL would keep every finish from being recorded.
    SELECT least(least(p_backoff, interval '1 hour') * power(2, least(greatest(p_failures - 1, 0), 20)), interval '1 hour')
$$;

-- unbar(): whom force took the run away from is no longer at work: its successor may begin. The caller holds the locks.
CREATE OR REPLACE FUNCTION unbar(p_instance executor_instances, p_detail jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE executor_instances i SET bars_successor = false WHERE i.instance_id = p_instance.instance_id AND i.bars_successor;
    IF FOUND THEN
        PERFORM append_event('unbarred', p_instance.run_id, p_instance, p_detail);
    END IF;
END
$$;

-- declare_dead(): end an instance by its age, as staleness() has allowed it. The caller holds the locks.
CREATE OR REPLACE FUNCTION declare_dead(p_holder executor_instances, p_at timestamptz, p_detail jsonb) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT end_instances(ARRAY[p_holder.instance_id], ARRAY['CRASHED'], ARRAY[NULL::integer], ARRAY['stale'], ARRAY[0],
        ARRAY[p_detail || jsonb_build_object(
            'last_heartbeat', p_holder.last_heartbeat,
            'margin_seconds', extract(epoch FROM p_at - p_holder.last_heartbeat - p_holder.stale_after))])
$$;
