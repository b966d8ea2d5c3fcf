-- holder(instance): how an instance is described to those who ask about it. Secrets stay out.
CREATE OR REPLACE FUNCTION holder(i executor_instances, at timestamptz) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT jsonb_build_object(
        'instance_id', i.instance_id, 'executor_id', i.executor_id, 'host', i.host, 'pid', i.pid,
        'child_pid', i.child_pid, 'attempt', i.attempt, 'fence', i.fence, 'status', i.status, 'cause', i.cause,
        'containment', i.containment, 'purpose', i.purpose,
        'started_at', i.started_at, 'last_heartbeat', i.last_heartbeat, 'ended_at', i.ended_at,
        'age_seconds', extract(epoch FROM greatest(at - i.started_at, interval '0'))::float8,
        'heartbeat_age_seconds', extract(epoch FROM greatest(at - i.last_heartbeat, interval '0'))::float8,
        'stale_after_seconds', extract(epoch FROM i.stale_after)::float8,
        'stop_requested_at', i.stop_requested_at, 'message', i.message)
$$;
