-- node_beat(): a node says that it is here and how it is, and hears whether somebody wants it drained.
CREATE OR REPLACE FUNCTION node_beat(
    p_node_id uuid, p_executor_id text, p_host text, p_version text, p_queues text[], p_labels jsonb,
    p_slots integer, p_running integer, p_state text, p_stale_after_ms bigint, OUT drain_requested_by text
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM commit_heartbeat();
    UPDATE nodes n SET last_heartbeat = clock_timestamp(), running = p_running, state = p_state
     WHERE n.node_id = p_node_id RETURNING n.drain_requested_by INTO drain_requested_by;
    IF NOT FOUND THEN
        INSERT INTO nodes (node_id, executor_id, host, version, queues, labels, slots, running, state, stale_after)
        VALUES (p_node_id, p_executor_id, p_host, p_version, p_queues, p_labels, p_slots, p_running, p_state,
                p_stale_after_ms * interval '1 millisecond');
    END IF;
END
$$;

-- drain(): ask the nodes of this executor id (PID@host) or host to start nothing more, and to end when they are done.
CREATE OR REPLACE FUNCTION drain(p_node text, p_by text, OUT asked text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    WITH changed AS (
        UPDATE nodes SET drain_requested_at = clock_timestamp(), drain_requested_by = p_by
         WHERE p_node IN (executor_id, host) AND state <> 'gone' AND last_heartbeat > clock_timestamp() - stale_after
        RETURNING executor_id
    )
    SELECT coalesce(array_agg(executor_id ORDER BY executor_id), '{}') INTO asked FROM changed;
    PERFORM pg_notify(current_schema(), 'node ' || p_node);
END
$$;
