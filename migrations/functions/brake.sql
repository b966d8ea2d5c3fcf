-- brake_engaged(): do so many hosts look silent at once that the fault is more likely the database's, or ours?
--
-- Engaged when more than half of the hosts that hold something, and at least three, look silent by their freshest
-- heartbeat. Refreshed at most once a second, by whoever needs it and finds the row free; the others read what is there.
CREATE OR REPLACE FUNCTION brake_engaged() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_engaged boolean;
BEGIN
    PERFORM FROM takeover_brake WHERE looked_at NOT BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp()
        FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE takeover_brake b
           SET looked_at = clock_timestamp(), hosts = h.hosts, hosts_stale = h.hosts_stale,
               engaged = h.hosts_stale >= 3 AND 2 * h.hosts_stale > h.hosts
          FROM (SELECT count(*) AS hosts, count(*) FILTER (WHERE silent) AS hosts_stale
                  FROM (SELECT bool_and(last_heartbeat < clock_timestamp() - stale_after) AS silent
                          FROM executor_instances WHERE status = 'RUNNING' GROUP BY host) per_host) h;
    END IF;
    SELECT engaged INTO v_engaged FROM takeover_brake;
    RETURN v_engaged;
END
$$;
