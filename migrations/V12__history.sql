ALTER TABLE settings
    ADD COLUMN history           text,
    ADD COLUMN history_since     timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN quarantined_until timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN lossless_failover boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN settings.history IS
    'The line of commits that this database was last known to continue: system identifier and timeline. Another one means '
    'that a standby was promoted or a backup restored, and that the newest commits may be missing.';
COMMENT ON COLUMN settings.history_since IS 'When the server began to accept writes on that line, if it is not the first one.';
COMMENT ON COLUMN settings.quarantined_until IS
    'Until then nothing is granted anew: whoever holds a run by a claim that got lost takes it up again. An administrator who '
    'knows that nobody does may set it to -infinity.';
COMMENT ON COLUMN settings.lossless_failover IS
    'What was acknowledged is on every standby that may be promoted (synchronous_standby_names, and a failover manager that '
    'promotes no other): no quarantine then. Yours to set, and to keep true.';
UPDATE settings SET history =
    (SELECT system_identifier || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system());
ALTER TABLE settings ALTER COLUMN history SET NOT NULL;

ALTER TABLE run_events DROP CONSTRAINT run_events_kind_check;
ALTER TABLE run_events ADD CONSTRAINT run_events_kind_check CHECK (kind IN
    ('submitted', 'claimed', 'readopted', 'refused', 'stop_requested', 'unbarred', 'retried', 'restart_requested',
     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')) NOT VALID;
