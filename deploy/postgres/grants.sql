-- Who may do what, once roles and schema are there. As systole_owner. `systole migrate` does it whenever it installs
-- functions, and the roles exist.
REVOKE ALL ON ALL TABLES IN SCHEMA systole FROM PUBLIC, systole_worker, systole_client, systole_viewer;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA systole FROM PUBLIC, systole_worker, systole_client, systole_viewer;
GRANT USAGE ON SCHEMA systole TO systole_worker, systole_client, systole_viewer;

-- Everybody may look.
GRANT SELECT ON systole.settings, systole.runs, systole.executor_instances, systole.run_events
    TO systole_worker, systole_client, systole_viewer;
GRANT EXECUTE ON FUNCTION systole.holder, systole.rw_since TO systole_worker, systole_client, systole_viewer;

GRANT EXECUTE ON FUNCTION systole.fence, systole.request_stop TO systole_worker, systole_client;
GRANT EXECUTE ON FUNCTION systole.claim, systole.beat, systole.finish, systole.file_certificate, systole.take_away
    TO systole_worker;
