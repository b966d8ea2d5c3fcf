-- append_event(): one row of history, written by the transition that it tells of.
--
-- Not in SQL: that would be planned anew by each call.
CREATE OR REPLACE FUNCTION append_event(p_kind text, p_run_id text, p_instance executor_instances, p_detail jsonb)
RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO run_events (run_id, kind, instance_id, executor_id, fence, detail)
    VALUES (p_run_id, p_kind, p_instance.instance_id, p_instance.executor_id, p_instance.fence, jsonb_strip_nulls(p_detail));
END
$$;
