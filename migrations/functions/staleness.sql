-- staleness(): may this holder be taken over by age, by this taker, now?
--
-- '' is yes. 'fresh' is the ordinary no. Everything else means: silent for too long by the bare clock, but not proven:
--   rw_since_unknown  we cannot tell for how long the server itself has been able to take heartbeats;
--   server_started    the server has accepted writes for less than stale_after: nobody could have beaten before;
--   taker_cold        the taker has not itself beaten in health for stale_after;
--   clock_step        the database clock and the taker's own elapsed time disagree: one of them has jumped;
--   brake             too many hosts fell silent at once;
--   quarantine        the database has failed over, and what this holder said last may be missing.
-- The age is compared with the holder's own stale_after: a taker brings none, for with a small one it would take
-- over the living. A heartbeat from the future counts as one of this moment.
CREATE OR REPLACE FUNCTION staleness(
    p_holder executor_instances, p_at timestamptz,
    p_trusted_since timestamptz, p_expected_now timestamptz, p_tolerance_ms bigint
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_limit    timestamptz := p_at - p_holder.stale_after;
    v_rw_since timestamptz;
BEGIN
    IF least(p_holder.last_heartbeat, p_at) >= v_limit THEN
        RETURN 'fresh';
    END IF;
    v_rw_since := rw_since();
    IF v_rw_since IS NULL THEN
        RETURN 'rw_since_unknown';
    ELSIF least(v_rw_since, p_at) >= v_limit THEN
        RETURN 'server_started';
    ELSIF p_trusted_since IS NULL OR p_trusted_since >= v_limit THEN
        RETURN 'taker_cold';
    ELSIF p_expected_now IS NOT NULL
          AND abs(extract(epoch FROM p_at - p_expected_now)) * 1000 > p_tolerance_ms THEN
        RETURN 'clock_step';
    ELSIF p_holder.last_heartbeat >= p_at - 2 * p_holder.stale_after AND brake_engaged() THEN
        RETURN 'brake';
    ELSIF quarantined_until() IS NOT NULL THEN
        RETURN 'quarantine';
    END IF;
    RETURN '';
END
$$;

-- begin_to_age(): a heartbeat from the future would keep its run for as long as the clock was ahead. It is one of this moment now,
-- unless somebody has the row: then whoever comes next does this.
CREATE OR REPLACE FUNCTION begin_to_age(p_instance_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM FROM executor_instances i
      WHERE i.instance_id = p_instance_id AND (i.status = 'RUNNING' OR i.bars_successor)
        FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE executor_instances i SET last_heartbeat = clock_timestamp()
         WHERE i.instance_id = p_instance_id AND i.last_heartbeat > clock_timestamp() + interval '1 second';
    END IF;
END
$$;
