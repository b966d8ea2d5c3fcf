-- node_beat(): a node says that it is here and how it is, and hears whether somebody wants it drained, or the fleet does, because
-- it is older than is allowed.
-- A version that has no name calls it without.
DROP FUNCTION IF EXISTS node_beat(uuid, text, text, text, text[], jsonb, text[], boolean, integer, integer, text, bigint);
CREATE OR REPLACE FUNCTION node_beat(
    p_node_id uuid, p_executor_id text, p_host text, p_version text, p_queues text[], p_labels jsonb,
    p_commands text[], p_starts_anything boolean, p_slots integer, p_running integer, p_state text, p_stale_after_ms bigint,
    p_name text DEFAULT NULL, p_http_address text DEFAULT NULL, OUT drain_requested_by text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM commit_heartbeat();
    UPDATE nodes n SET last_heartbeat = clock_timestamp(), running = p_running, state = p_state
     WHERE n.node_id = p_node_id RETURNING n.drain_requested_by INTO drain_requested_by;
    IF NOT FOUND THEN
        INSERT INTO nodes (node_id, executor_id, host, version, queues, labels, commands, starts_anything,
                           slots, running, state, stale_after, name, http_address)
        VALUES (p_node_id, p_executor_id, p_host, p_version, p_queues, p_labels, p_commands, p_starts_anything,
                p_slots, p_running, p_state, p_stale_after_ms * interval '1 millisecond', p_name, p_http_address);
    END IF;
    SELECT coalesce(drain_requested_by, format('the fleet, where systole %s is the oldest allowed', s.oldest_allowed))
      INTO drain_requested_by FROM settings s
     WHERE drain_requested_by IS NOT NULL OR is_too_old(p_version, s.oldest_allowed);
END
$$;

-- drain(): ask the nodes of this name, executor id (PID@host) or host to start nothing more, and to end when they are done.
DROP FUNCTION IF EXISTS drain(text, text);
CREATE OR REPLACE FUNCTION drain(p_node text, p_by text, p_reason text DEFAULT NULL, OUT asked text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    WITH changed AS (
        UPDATE nodes SET drain_requested_at = clock_timestamp(), drain_requested_by = p_by
         -- Also one that has not been heard of for a while: it may be busy, or cut off, and should know when it comes back.
         WHERE p_node IN (name, executor_id, host) AND state <> 'gone' AND last_heartbeat > clock_timestamp() - interval '1 day'
        RETURNING executor_id
    )
    SELECT coalesce(array_agg(executor_id ORDER BY executor_id), '{}') INTO asked FROM changed;
    IF cardinality(asked) > 0 THEN
        INSERT INTO fleet_events (kind, subject, by, reason, detail)
        VALUES ('drain_requested', p_node, p_by, p_reason, jsonb_build_object('asked', asked));
    END IF;
    PERFORM pg_notify(current_schema(), 'node ' || p_node);
END
$$;

-- forget(): somebody knows of the crashes of a node (its name, or PID@host) or of a host, so that they ring no more, and wants to see
-- no more of its nodes that are dead; or of a run that was given up as poison (its id), which stays FAILED and may be queued again.
--
-- Verdicts: ok · alive (there is nothing to forget but a node that is here) · unknown. One that was removed and comes back
-- registers anew.
DROP FUNCTION IF EXISTS forget(text, text, text);
CREATE OR REPLACE FUNCTION forget(
    p_subject text, p_by text, p_reason text DEFAULT NULL,
    OUT verdict text, OUT acknowledged integer, OUT removed text[], OUT alive text[], OUT was_given_up boolean
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_known text[];
BEGIN
    PERFORM lock_briefly();
    -- Before the nodes, as whoever gives a run up does it.
    DELETE FROM poisoned p USING runs r
     WHERE p.run_id = p_subject AND r.run_id = p.run_id AND r.status = 'FAILED' AND r.crashes >= r.crashes_max;
    was_given_up := FOUND;
    SELECT array_agg(n.executor_id), coalesce(array_agg(n.executor_id ORDER BY n.executor_id) FILTER (WHERE n.here), '{}') INTO v_known, alive
      FROM (SELECT executor_id, state <> 'gone' AND last_heartbeat >= clock_timestamp() - stale_after AS here
              FROM nodes WHERE p_subject IN (name, executor_id, host)) n;
    -- In the order of their keys, as everywhere; tested again on what is locked.
    WITH dead AS (
        SELECT node_id FROM nodes
         WHERE p_subject IN (name, executor_id, host) AND (state = 'gone' OR last_heartbeat < clock_timestamp() - stale_after)
         ORDER BY node_id FOR UPDATE
    ), gone AS (
        DELETE FROM nodes n USING dead d WHERE n.node_id = d.node_id RETURNING n.executor_id
    )
    SELECT coalesce(array_agg(executor_id ORDER BY executor_id), '{}') INTO removed FROM gone;
    WITH ringing AS (
        SELECT id FROM incidents
         WHERE kind = 'crash' AND acknowledged_at IS NULL AND (p_subject IN (host, executor_id) OR executor_id = ANY (v_known))
         ORDER BY id FOR UPDATE
    )
    UPDATE incidents i SET acknowledged_at = clock_timestamp() FROM ringing r WHERE i.id = r.id;
    GET DIAGNOSTICS acknowledged = ROW_COUNT;
    IF acknowledged > 0 OR cardinality(removed) > 0 OR was_given_up THEN
        verdict := 'ok';
        INSERT INTO fleet_events (kind, subject, by, reason, detail)
        VALUES ('forgotten', p_subject, p_by, p_reason, jsonb_strip_nulls(jsonb_build_object(
            'crashes', acknowledged, 'nodes', removed, 'poison', nullif(was_given_up, false))));
    ELSE
        verdict := CASE WHEN cardinality(alive) > 0 THEN 'alive' ELSE 'unknown' END;
    END IF;
END
$$;

-- why_waiting(): what a queued run waits for, in words for people; NULL if it is not queued.
CREATE OR REPLACE FUNCTION why_waiting(p_run_id text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH alive AS (
        SELECT * FROM nodes WHERE state = 'ready' AND last_heartbeat > clock_timestamp() - stale_after
    )
    SELECT CASE
        WHEN quarantined_until() IS NOT NULL
            THEN format('PostgreSQL has failed over, and until %s UTC nothing is started anew', to_char(quarantined_until() AT TIME ZONE 'UTC', 'HH24:MI:SS'))
        WHEN EXISTS (SELECT FROM executor_instances b WHERE b.run_id = r.run_id AND b.bars_successor)
            THEN 'it was taken away by force, and its last command may still be at work (takeover --force --unsafe-now does not wait for that)'
        WHEN r.available_at > clock_timestamp()
            THEN format('not before %s UTC', to_char(r.available_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
        WHEN q.paused_at IS NOT NULL THEN format('queue %s is paused', l.queue)
        WHEN l.queue = 'supervise' AND l.requirements->>'systole:command' LIKE 'batch:%'
             AND NOT EXISTS (SELECT FROM alive n WHERE l.requirements->>'systole:command' = ANY (n.commands))
            THEN format('no systole supervise works on its batch: start that again, or systole cancel --batch %s',
                        substr(l.requirements->>'systole:command', length('batch:') + 1))
        WHEN NOT EXISTS (SELECT FROM alive n WHERE l.queue = ANY (n.queues))
            THEN format('no node serves queue %s', l.queue)
        WHEN NOT EXISTS (SELECT FROM alive n WHERE l.queue = ANY (n.queues) AND has_labels(n.labels, l.requirements))
            THEN format('no node of queue %s has the labels %s', l.queue, l.requirements - ARRAY['systole:argv', 'systole:command'])
        WHEN NOT EXISTS (SELECT FROM alive n WHERE l.queue = ANY (n.queues) AND has_labels(n.labels, l.requirements)
                            AND may_start(n.commands, n.starts_anything, l.requirements))
            THEN CASE WHEN l.requirements ? 'systole:argv' THEN 'no such node starts submitted commands (allow_submitted_commands)'
                      ELSE format('no such node knows the command %s', l.requirements->>'systole:command') END
        WHEN q.running_max IS NOT NULL THEN format('for a free slot, of which queue %s may use %s', l.queue, q.running_max)
        ELSE 'for a free slot' END
      FROM runs r
      JOIN lanes l USING (lane_id)
      LEFT JOIN queues q USING (queue)
     WHERE r.run_id = p_run_id AND r.status = 'QUEUED'
$$;
