-- brake_engaged(): do so many hosts look silent at once that the fault is more likely the database's, or ours?
--
-- Engaged when more than half of the hosts that hold something, and at least three, look silent by their freshest
-- heartbeat. A look is good for a second. When it is older, everybody looks anew, also while somebody else is about to
-- write down what he sees: nobody may go by the calm of an hour ago in the very second in which all fall silent.
CREATE OR REPLACE FUNCTION brake_engaged() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT SET jit = off SET enable_seqscan = off AS $$
DECLARE
    v_engaged     boolean;
    v_hosts       integer;
    v_hosts_stale integer;
BEGIN
    SELECT engaged INTO v_engaged FROM takeover_brake
     WHERE looked_at BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp();
    IF FOUND THEN
        RETURN v_engaged;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE silent) INTO v_hosts, v_hosts_stale
      FROM (SELECT bool_and(last_heartbeat < clock_timestamp() - stale_after) AS silent
              FROM executor_instances WHERE status = 'RUNNING' GROUP BY host) per_host;
    v_engaged := v_hosts_stale >= 3 AND 2 * v_hosts_stale > v_hosts;
    PERFORM FROM takeover_brake FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE takeover_brake
           SET looked_at = clock_timestamp(), hosts = v_hosts, hosts_stale = v_hosts_stale, engaged = v_engaged;
    END IF;
    RETURN v_engaged;
END
$$;
