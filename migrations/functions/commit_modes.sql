-- commit_durably(), commit_heartbeat(), commit_carelessly(): how much durability this transaction waits for.
--
-- Set inside the transaction: a SET clause on the function would be undone before the COMMIT it is meant for.
-- A heartbeat on a lone server may be lost with the server: whoever lost it is covered by rw_since(). With synchronous
-- standbys it must have reached one: an isolated old primary would acknowledge it for ever.
CREATE OR REPLACE FUNCTION commit_durably() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION commit_heartbeat() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('synchronous_commit',
        CASE WHEN current_setting('synchronous_standby_names') = '' THEN 'off' ELSE 'remote_write' END, true);
END
$$;

CREATE OR REPLACE FUNCTION commit_carelessly() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
END
$$;
