-- history(): which line of commits this server continues: its system identifier, and its timeline in eight hexadecimal digits.
--
-- A promoted standby begins a new timeline, and so does a backup that was restored to a point in time; a dump that was read
-- into another cluster has that one's identifier. In each the newest commits of the old line may be missing.
CREATE OR REPLACE FUNCTION history() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT system_identifier || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()
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
    v_history text;
    v_since   timestamptz;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN NULL;
    END IF;
    v_history := history();
    IF p_settings.history <> v_history THEN
        v_since := least(rw_since(), clock_timestamp());  -- least() passes over a NULL
        p_settings.quarantined_until := CASE
            -- Another cluster is no standby of ours, whatever was promised of those.
            WHEN p_settings.lossless_failover AND split_part(p_settings.history, '-', 1) = split_part(v_history, '-', 1)
                THEN '-infinity'
            ELSE v_since + p_settings.stale_after_max END;
        IF NOT current_setting('transaction_read_only')::boolean THEN
            PERFORM FROM settings s WHERE s.history = p_settings.history FOR NO KEY UPDATE SKIP LOCKED;
            IF FOUND THEN
                UPDATE settings SET history = v_history, history_since = v_since,
                                    quarantined_until = p_settings.quarantined_until;
                INSERT INTO fleet_events (kind, subject, detail)
                VALUES ('failed_over', v_history, jsonb_build_object(
                    'before', p_settings.history, 'since', v_since, 'quarantined_until',
                    nullif(p_settings.quarantined_until, '-infinity')));
            END IF;
        END IF;
    END IF;
    RETURN CASE WHEN clock_timestamp() < p_settings.quarantined_until THEN p_settings.quarantined_until END;
END
$$;
CREATE OR REPLACE FUNCTION quarantined_until() RETURNS timestamptz
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT quarantine(s) FROM settings s
$$;
