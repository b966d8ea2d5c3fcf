ALTER TABLE settings
    ADD COLUMN history           text,
    ADD COLUMN history_before    text,
    ADD COLUMN history_since     timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN last_event_before bigint NOT NULL DEFAULT 0,
    ADD COLUMN quarantined_until timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN lossless_failover boolean NOT NULL DEFAULT false,
    ALTER COLUMN stale_after_max SET DEFAULT '1 minute';
COMMENT ON COLUMN settings.stale_after_max IS
    'The longest stale_after that anybody may have, and so how long a failover is waited out. Lower it only when nobody has more.';
COMMENT ON COLUMN settings.history IS
    'The line of commits that this database was last known to continue: system identifier and timeline. Another one means '
    'that a standby was promoted or a backup restored, and that the newest commits may be missing. NULL where it cannot be told.';
COMMENT ON COLUMN settings.history_before IS 'The one before it, whose last commits may be missing.';
COMMENT ON COLUMN settings.history_since IS 'When the server began to accept writes on that line, if it is not the first one.';
COMMENT ON COLUMN settings.last_event_before IS 'Of run_events: all later ones belong to that line.';
COMMENT ON COLUMN settings.quarantined_until IS
    'Until then nothing is granted anew: whoever holds a run by a claim that got lost takes it up again. An administrator who '
    'knows that nobody does may set it to -infinity.';
COMMENT ON COLUMN settings.lossless_failover IS
    'What was acknowledged is on every standby that may be promoted (synchronous_standby_names, and a failover manager that '
    'promotes no other): no quarantine then. Yours to set, and to keep true.';
DO $$
BEGIN
    UPDATE settings SET history =
        (SELECT system_identifier || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system());
EXCEPTION WHEN OTHERS THEN
    NULL;  -- where it cannot be told
END
$$;
-- Who has more than the new default keeps it.
UPDATE settings SET stale_after_max = greatest('1 minute',
    (SELECT max(i.stale_after) FROM executor_instances i WHERE i.status = 'RUNNING'),
    (SELECT max(n.stale_after) FROM nodes n WHERE n.last_heartbeat > clock_timestamp() - interval '1 day'))
 WHERE stale_after_max = '10 minutes';

ALTER TABLE run_events DROP CONSTRAINT run_events_kind_check;
ALTER TABLE run_events ADD CONSTRAINT run_events_kind_check CHECK (kind IN
    ('submitted', 'claimed', 'readopted', 'refused', 'stop_requested', 'unbarred', 'retried', 'restart_requested',
     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')) NOT VALID;
