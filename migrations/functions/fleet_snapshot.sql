-- fleet_snapshot(): the fleet as it is now, for those who watch it: one statement, which changes nothing and locks nothing.
--
-- What it reads is bounded by what there is (nodes, running instances, lanes), never by how much has ended or waits: each
-- count of what waits in a lane stops at its share of 100,000, of what has a start in the future or was given up at 10,000, and
-- what has ended lately is looked for among the newest 2,000 events. All by an index, but for nodes and incidents, which prune()
-- keeps small.
--
-- A holder is stale when it was silent for its stale_after; not from before the server itself began to take heartbeats. A node is
-- stale from half of that on, crashed when it is over, and for an hour at most; one that was started anew under its name
-- takes its place.
--
-- Violations: one_running_per_run (of two attempts of a run one is not its newest) and fence_monotonic are asked of all that runs, running_has_instance both ways: of all
-- instances that run, and of the runs of the newest 500 events. They ring when something is wrong now; the proof of the whole history is `systole audit`.
CREATE OR REPLACE FUNCTION fleet_snapshot() RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET enable_sort = off AS $$
DECLARE
    v_now        timestamptz := clock_timestamp();
    v_is_standby boolean := pg_is_in_recovery();
    v_sees_all   boolean := pg_has_role(current_user, 'pg_read_all_stats', 'USAGE');
    -- Nobody could be heard before. Where the walwriter cannot be seen, and on a standby, which has none, the server's start will do:
    -- here nobody is declared dead. From the future, after a step of the clock, it is this moment.
    v_heard_from timestamptz := least(coalesce(rw_since(), pg_postmaster_start_time()), v_now);
    v_quarantine timestamptz;
BEGIN
    -- Whoever sees a new history first writes that down; here nothing is written.
    PERFORM set_config('transaction_read_only', 'on', true);
    v_quarantine := quarantined_until();
    RETURN (
    WITH silent AS MATERIALIZED (
        SELECT n.node_id, coalesce(n.name, n.host) AS name, n.host, n.version, n.slots, n.running, n.state, n.http_address,
               n.labels->>'zone' AS zone, n.started_at, n.last_heartbeat, n.stale_after,
               v_now - greatest(n.last_heartbeat, v_heard_from) AS silence,
               max(n.started_at) OVER (PARTITION BY coalesce(n.name, n.host)) AS newest_started_at
          FROM nodes n WHERE n.state <> 'gone' AND n.last_heartbeat > v_now - interval '1 hour'
    ), present AS MATERIALIZED (
        SELECT s.*, CASE WHEN s.silence > s.stale_after THEN 'crashed' WHEN s.silence > s.stale_after / 2 THEN 'stale'
                         WHEN s.state = 'draining' THEN 'draining' ELSE 'live' END AS shown
          FROM silent s WHERE s.newest_started_at <= greatest(s.last_heartbeat, s.started_at) OR s.silence <= s.stale_after / 2
    ), working AS MATERIALIZED (
        SELECT r.lane_id, i.host, count(*) AS instances, count(*) FILTER (WHERE greatest(i.last_heartbeat, v_heard_from) + i.stale_after < v_now) AS stale,
               count(*) FILTER (WHERE r.status IS DISTINCT FROM 'RUNNING') AS without_run, count(*) FILTER (WHERE r.fence <> i.fence) AS superseded,
               count(*) FILTER (WHERE r.attempt <> i.attempt) AS second
          FROM executor_instances i LEFT JOIN runs r ON r.run_id = i.run_id WHERE i.status = 'RUNNING'
         GROUP BY r.lane_id, i.host
    ), per_lane AS MATERIALIZED (
        SELECT lane_id, sum(instances - stale) AS running, sum(stale) AS stale FROM working GROUP BY lane_id
    ), hosts AS MATERIALIZED (
        SELECT host, sum(instances) = sum(stale) AS is_silent FROM working GROUP BY host
    ), given_up AS MATERIALIZED (
        SELECT r.lane_id, count(*) AS poison
          FROM (SELECT run_id FROM poisoned ORDER BY run_id LIMIT 10000) p
         CROSS JOIN LATERAL (SELECT lane_id FROM runs WHERE run_id = p.run_id AND status = 'FAILED' AND crashes >= crashes_max OFFSET 0) r
         GROUP BY r.lane_id
    ), to_come AS MATERIALIZED (
        SELECT lane_id, count(*) FILTER (WHERE available_at > v_now) AS delayed, count(*) FILTER (WHERE available_at <= v_now) AS due,
               min(available_at) AS first
          FROM (SELECT lane_id, available_at FROM runs WHERE status = 'QUEUED' AND claim_order IS NULL ORDER BY available_at LIMIT 10000) c
         GROUP BY lane_id
    ), share AS MATERIALIZED (
        SELECT 100000 / greatest(count(*), 1) + 1 AS most FROM lanes
    ), waiting AS MATERIALIZED (
        SELECT l.lane_id, l.queue, next.available_at AS first,
               (SELECT count(*) FROM (SELECT FROM runs r WHERE r.lane_id = l.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
                                       LIMIT (SELECT most FROM share)) c) AS queued
          FROM lanes l
          LEFT JOIN LATERAL (SELECT r.available_at FROM runs r
                              WHERE r.lane_id = l.lane_id AND r.status = 'QUEUED' AND r.claim_order IS NOT NULL
                              ORDER BY r.claim_order LIMIT 1) next ON true
    ), per_queue AS MATERIALIZED (
        SELECT w.queue, min(w.lane_id) AS lane_id, sum(w.queued + coalesce(c.due, 0)) AS queued, coalesce(sum(c.delayed), 0) AS delayed,
               coalesce(sum(k.running), 0) AS running, coalesce(sum(k.stale), 0) AS stale, coalesce(sum(g.poison), 0) AS poison,
               greatest(extract(epoch FROM v_now - least(min(w.first), min(c.first))), 0) AS oldest_seconds
          FROM waiting w LEFT JOIN to_come c USING (lane_id) LEFT JOIN per_lane k USING (lane_id) LEFT JOIN given_up g USING (lane_id)
         GROUP BY w.queue
    ), queued AS (
        SELECT coalesce(p.queue, q.queue) AS queue, p.lane_id, coalesce(p.queued, 0) AS queued, coalesce(p.delayed, 0) AS delayed,
               coalesce(p.running, 0) AS running, coalesce(p.stale, 0) AS stale, coalesce(p.poison, 0) AS poison,
               coalesce(p.oldest_seconds, 0) AS oldest_seconds, q.paused_at IS NOT NULL AS paused
          FROM per_queue p LEFT JOIN queues q USING (queue)
         UNION ALL
        SELECT q.queue, NULL, 0, 0, 0, 0, 0, 0, q.paused_at IS NOT NULL
          FROM queues q WHERE NOT EXISTS (SELECT FROM lanes l WHERE l.queue = q.queue)
    ), worst AS (
        SELECT i.run_id AS run, l.queue, i.host, extract(epoch FROM v_now - i.last_heartbeat) AS seconds
          FROM (SELECT run_id, host, last_heartbeat FROM executor_instances
                 WHERE status = 'RUNNING' AND greatest(last_heartbeat, v_heard_from) + stale_after < v_now
                   AND (SELECT sum(stale) FROM per_lane) > 0
                 ORDER BY last_heartbeat LIMIT 20) i
          LEFT JOIN LATERAL (SELECT lane_id FROM runs WHERE run_id = i.run_id OFFSET 0) r ON true
          LEFT JOIN lanes l USING (lane_id)
    ), happened AS (
        SELECT kind, host, cause, count, raised_at FROM counters
         UNION ALL
        SELECT kind, host, cause, count(*), max(at) FROM incidents GROUP BY kind, host, cause
    ), counted AS MATERIALIZED (
        SELECT kind, host, cause, sum(count) AS count, max(raised_at) AS raised_at FROM happened GROUP BY kind, host, cause
    ), crashes AS (
        SELECT c.host, c.cause, c.count FROM counted c
         WHERE c.kind = 'crash'
           AND c.host IN (SELECT host FROM counted WHERE kind = 'crash' GROUP BY host ORDER BY max(raised_at) DESC, host LIMIT 1000)
    ), ringing AS (
        SELECT host, count(DISTINCT coalesce(executor_id, '')) AS count FROM incidents
         WHERE kind = 'crash' AND cause <> 'forced' AND acknowledged_at IS NULL AND at > v_now - interval '15 minutes'
         GROUP BY host ORDER BY max(at) DESC LIMIT 1000
    ), lately AS (
        -- A process in a container has the same PID in each of its lives, so one that dies again in another minute is another one.
        SELECT host, count(DISTINCT (executor_id, date_trunc('minute', at))) AS count FROM incidents
         WHERE kind = 'crash' AND cause <> 'forced' AND at > v_now - interval '30 minutes'
         GROUP BY host ORDER BY max(at) DESC LIMIT 1000
    ), newest AS MATERIALIZED (
        SELECT e.id, e.at, e.run_id, e.kind, e.instance_id, e.fence FROM run_events e ORDER BY e.id DESC LIMIT 2000
    ), ended AS MATERIALIZED (
        SELECT i.status, greatest(extract(epoch FROM i.ended_at - i.started_at), 0)::float8 AS seconds
          FROM newest e
         CROSS JOIN LATERAL (SELECT status, ended_at, started_at FROM executor_instances WHERE instance_id = e.instance_id OFFSET 0) i
         WHERE e.at > v_now - interval '5 minutes' AND e.kind IN ('completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')
    ), touched AS (
        SELECT r.run_id FROM (SELECT DISTINCT run_id FROM (SELECT run_id FROM newest ORDER BY id DESC LIMIT 500) n) e
         CROSS JOIN LATERAL (SELECT run_id FROM runs WHERE run_id = e.run_id AND status = 'RUNNING' OFFSET 0) r
         WHERE NOT EXISTS (SELECT FROM executor_instances i WHERE i.run_id = r.run_id AND i.status = 'RUNNING' OFFSET 0)
    ), granted AS (
        SELECT fence <= lag(fence) OVER (PARTITION BY run_id ORDER BY id) AS went_back FROM newest WHERE kind = 'claimed'
    ), observed AS (
        SELECT t.name, to_regclass(t.name) AS oid FROM unnest(ARRAY['executor_instances', 'nodes', 'runs', 'run_events']) AS t (name)
    )
    SELECT json_build_object(
        'fleet_id', (SELECT fleet_id FROM settings),
        'nodes', (SELECT coalesce(json_agg(json_build_object('name', name, 'host', host, 'version', version, 'state', shown,
                      'heartbeat_age_seconds', greatest(extract(epoch FROM v_now - last_heartbeat)::float8, 0),
                      -- The dead have no room, and do nothing.
                      'slots', CASE shown WHEN 'crashed' THEN 0 ELSE slots END, 'running', CASE shown WHEN 'crashed' THEN 0 ELSE running END,
                      'http_address', http_address, 'zone', zone) ORDER BY name), '[]') FROM present),
        'instances_live', (SELECT coalesce(sum(running), 0) FROM per_lane),
        'instances_stale', (SELECT coalesce(sum(stale), 0) FROM per_lane),
        'hosts', (SELECT coalesce(json_agg(host), '[]') FROM (SELECT host FROM hosts ORDER BY host LIMIT 1000) h),
        'crashes', (SELECT coalesce(json_agg(c), '[]') FROM crashes c),
        'ringing', (SELECT coalesce(json_agg(r), '[]') FROM ringing r),
        'lately', (SELECT coalesce(json_agg(l), '[]') FROM lately l),
        'takeovers', (SELECT coalesce(json_object_agg(cause, count), '{}') FROM counted WHERE kind = 'takeover'),
        'duplicates_refused', (SELECT coalesce(sum(count), 0) FROM counted WHERE kind = 'refusal'),
        'queues', (SELECT coalesce(json_agg(json_build_object('queue', queue, 'queued', queued, 'delayed', delayed, 'running', running,
                      'stale', stale, 'poison', poison, 'oldest_seconds', oldest_seconds, 'paused', paused)
                      ORDER BY lane_id, queue), '[]') FROM queued),
        'by_hand', (SELECT json_build_object('running', coalesce(sum(running), 0), 'stale', coalesce(sum(stale), 0))
                      FROM per_lane WHERE lane_id IS NULL),
        'stale_runs', (SELECT coalesce(json_agg(w ORDER BY seconds DESC), '[]') FROM worst w),
        'ends', (SELECT coalesce(json_object_agg(status, count), '{}') FROM (SELECT status, count(*) AS count FROM ended GROUP BY status) s),
        'run_seconds', (SELECT percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY seconds) FROM ended),
        'one_running_per_run', (SELECT coalesce(sum(second), 0) FROM working),
        'running_has_instance', (SELECT count(*) FROM touched) + (SELECT coalesce(sum(without_run), 0) FROM working),
        'fence_monotonic', (SELECT count(*) FROM granted WHERE went_back) + (SELECT coalesce(sum(superseded), 0) FROM working),
        -- As brake_engaged() reckons it, which writes down only what a taker has asked.
        'brake_engaged', (SELECT count(*) FILTER (WHERE is_silent) >= 3 AND 2 * count(*) FILTER (WHERE is_silent) > count(*) FROM hosts),
        'quarantine_seconds', coalesce(greatest(extract(epoch FROM v_quarantine - v_now), 0), 0),
        'tables', (SELECT json_agg(json_build_object('table', name, 'bytes', pg_total_relation_size(oid),
                      -- A standby has none of these of its own.
                      'dead_rows', CASE WHEN NOT v_is_standby THEN pg_stat_get_dead_tuples(oid) END,
                      'updates', CASE WHEN NOT v_is_standby THEN pg_stat_get_tuples_updated(oid) END,
                      'hot_updates', CASE WHEN NOT v_is_standby THEN pg_stat_get_tuples_hot_updated(oid) END)) FROM observed),
        -- Who may not see all of them must not say that there is none.
        'oldest_transaction_seconds', CASE WHEN v_sees_all AND NOT v_is_standby THEN
            (SELECT coalesce(max(extract(epoch FROM v_now - since)), 0) FROM (
                SELECT xact_start AS since FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                 UNION ALL
                SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) t) END));
END
$$;
