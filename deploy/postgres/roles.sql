-- The four roles of a fleet. As a superuser, or on a managed server as its administrator; again does no harm.
--
--   systole_owner    owns the schema; the functions run as it
--   systole_worker   runs commands and nodes: claim, heartbeat, finish, stop, take over, steer the queue
--   systole_client   an application: submits, cancels, asks for stops, protects its own transactions with fence()
--   systole_viewer   looks
--
-- Nobody but the owner can write a table. By hand: psql -f roles.sql, then `systole migrate` as a member of
-- systole_owner (GRANT systole_owner TO deployer), which makes everything in its name. `systole migrate --roles` does
-- it all. For another schema than systole, replace that name in here.
--
-- Give people and machines roles of their own (CREATE ROLE build3 LOGIN PASSWORD '…' IN ROLE systole_worker), or let
-- them log in as these (ALTER ROLE systole_worker LOGIN PASSWORD '…'). The settings below hold only for the latter:
-- PostgreSQL applies those of the role that logs in. `systole doctor` says so where it matters, behind a pooler.
DO $$
DECLARE
    v_role  text;
    v_right text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['systole_owner', 'systole_worker', 'systole_client', 'systole_viewer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- Roles belong to all databases: another one was being given them at the same moment.
            END;
        END IF;
    END LOOP;
    -- They belong to all databases of the cluster, so whoever does this in another one meets us in the same rows, and one
    -- of us would fail ("tuple concurrently updated"). A COMMENT locks its role until the transaction ends.
    COMMENT ON ROLE systole_owner IS 'owns the tables and functions of systole, which run as it';
    -- An administrator who is no superuser may give himself what he has created, and has to, to create as it.
    IF NOT pg_has_role('systole_owner',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
    THEN
        GRANT systole_owner TO CURRENT_USER;
    END IF;
    -- To see since when the server accepts writes, and to end the transaction of a dead executor that keeps its run locked.
    -- One by one: who may not give the one may still give the other.
    FOREACH v_right IN ARRAY ARRAY['pg_read_all_stats', 'pg_signal_backend'] LOOP
        IF NOT pg_has_role('systole_owner', v_right, 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT %I TO systole_owner', v_right);
            EXCEPTION WHEN insufficient_privilege THEN
                RAISE WARNING 'systole_owner could not be given %: ask a superuser', v_right;
            END;
        END IF;
    END LOOP;
    -- Nobody's statement outlives its client for long, or holds a lock while nobody works.
    FOREACH v_role IN ARRAY ARRAY['systole_worker', 'systole_client', 'systole_viewer'] LOOP
        IF current_setting('server_version_num')::int >= 140000 THEN
            EXECUTE format('ALTER ROLE %I SET client_connection_check_interval = ''500ms''', v_role);
        END IF;
    END LOOP;
    ALTER ROLE systole_worker SET statement_timeout = '15s';
    ALTER ROLE systole_worker SET lock_timeout = '5s';
    ALTER ROLE systole_worker SET idle_in_transaction_session_timeout = '15s';
    ALTER ROLE systole_client SET idle_in_transaction_session_timeout = '5min';
    ALTER ROLE systole_viewer SET statement_timeout = '60s';
    ALTER ROLE systole_viewer SET idle_in_transaction_session_timeout = '60s';
END
$$;
