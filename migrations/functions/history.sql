-- history(): which line of commits this server continues: its system identifier, and its timeline in eight hexadecimal digits.
-- NULL on a standby, and where it cannot be told (Aurora): then no failover is ever recognised.
--
-- A promoted standby begins a new timeline, and so does a backup that was restored to a point in time; a dump that was read
-- into another cluster has that one's identifier. In each the newest commits of the old line may be missing.
CREATE OR REPLACE FUNCTION history() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT system_identifier || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system());
EXCEPTION WHEN object_not_in_prerequisite_state OR insufficient_privilege OR feature_not_supported THEN
    RETURN NULL;
END
$$;

-- quarantine(), quarantined_until(): until when nothing may be granted, nor anybody be declared dead by his age; NULL if that is over.
--
-- Behind a failover a claim may be missing whose holder is at work. It finds out with its next heartbeat, and takes its
-- tenure up again (readopt.sql). Whoever cannot be reached has been frozen or killed by his guard within his stale_after, for
-- which stale_after_max is the bound. Whoever sees the new line first writes down since when it is there, and waits for nobody
-- who does the same.
CREATE OR REPLACE FUNCTION quarantine(p_settings settings) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_history text := history();
    v_since   timestamptz;
BEGIN
    IF v_history IS DISTINCT FROM p_settings.history AND v_history IS NOT NULL THEN
        v_since := least(rw_since(), clock_timestamp());  -- least() passes over a NULL
        -- Who is known to have more was granted it before somebody lowered the bound. Another cluster is no standby of ours,
        -- whatever was promised of those; and what has not been waited out yet still is to be.
        IF p_settings.history IS NULL THEN
            NULL;  -- the first that is known
        ELSIF NOT p_settings.lossless_failover OR split_part(p_settings.history, '-', 1) <> split_part(v_history, '-', 1) THEN
            p_settings.quarantined_until := greatest(p_settings.quarantined_until, v_since + greatest(p_settings.stale_after_max,
                (SELECT max(i.stale_after) FROM executor_instances i WHERE i.status = 'RUNNING')));
        END IF;
        IF NOT current_setting('transaction_read_only')::boolean THEN
            PERFORM FROM settings s WHERE s.history IS NOT DISTINCT FROM p_settings.history FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND AND p_settings.history IS NULL THEN
                UPDATE settings SET history = v_history;
            ELSIF FOUND THEN
                UPDATE settings SET history = v_history, history_before = p_settings.history, history_since = v_since,
                                    last_event_before = coalesce((SELECT max(e.id) FROM run_events e), 0),
                                    quarantined_until = p_settings.quarantined_until;
                INSERT INTO fleet_events (kind, subject, detail)
                VALUES ('failed_over', v_history, jsonb_build_object(
                    'before', p_settings.history, 'since', v_since, 'quarantined_until',
                    nullif(p_settings.quarantined_until, '-infinity')));
            END IF;
        END IF;
    ELSIF clock_timestamp() < least(p_settings.history_since, p_settings.quarantined_until) THEN
        -- That was by a clock that was ahead, and has been set back: the wait begins anew.
        v_since := clock_timestamp();
        p_settings.quarantined_until := v_since + (p_settings.quarantined_until - p_settings.history_since);
        IF NOT current_setting('transaction_read_only')::boolean THEN
            PERFORM FROM settings s WHERE s.history_since = p_settings.history_since FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                UPDATE settings SET history_since = v_since, quarantined_until = p_settings.quarantined_until;
            END IF;
        END IF;
    END IF;
    RETURN CASE WHEN clock_timestamp() < p_settings.quarantined_until THEN p_settings.quarantined_until END;
END
$$;
CREATE OR REPLACE FUNCTION quarantined_until() RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (SELECT quarantine(s) FROM settings s);
END
$$;
