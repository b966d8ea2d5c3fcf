-- Who may do what, once roles and schema are there. As systole_owner. `systole migrate` does it whenever it installs
-- functions, and the roles exist.
REVOKE ALL ON ALL TABLES IN SCHEMA systole FROM PUBLIC, systole_worker, systole_client, systole_viewer;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA systole FROM PUBLIC, systole_worker, systole_client, systole_viewer;
GRANT USAGE ON SCHEMA systole TO systole_worker, systole_client, systole_viewer;

-- Everybody may look, but not at what is started with which environment: that is in run_specs.
GRANT SELECT ON systole.settings, systole.runs, systole.executor_instances, systole.run_events,
                systole.queues, systole.lanes, systole.nodes, systole.fleet_events, systole.refinery_schema_history
    TO systole_worker, systole_client, systole_viewer;
-- What runs write may hold secrets as well: that is for those who work. For a person:
-- GRANT SELECT ON systole.run_output TO anna;
GRANT SELECT ON systole.run_output TO systole_worker;
GRANT SELECT (instance_id, bytes_total, bytes_lost, path, is_last, updated_at) ON systole.run_output
    TO systole_client, systole_viewer;
GRANT EXECUTE ON FUNCTION systole.holder, systole.rw_since, systole.why_waiting, systole.history, systole.quarantined_until,
                          systole.fleet_snapshot
    TO systole_worker, systole_client, systole_viewer;

GRANT EXECUTE ON FUNCTION systole.fence, systole.request_stop, systole.submit, systole.submit_all, systole.cancel, systole.cancel_batch, systole.retry,
                          systole.restart
    TO systole_worker, systole_client;
GRANT EXECUTE ON FUNCTION systole.claim, systole.beat, systole.finish, systole.finish_all, systole.file_certificate, systole.readopt, systole.take_away,
                          systole.claim_queued, systole.reap, systole.node_beat, systole.drain, systole.forget,
                          systole.pause, systole.resume, systole.limit_queue, systole.prune,
                          systole.put_output, systole.tell, systole.join_batch
    TO systole_worker;
