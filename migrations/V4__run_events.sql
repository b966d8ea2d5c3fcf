CREATE TABLE run_events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id      text NOT NULL,
    kind        text NOT NULL CHECK (kind IN
                    ('claimed', 'refused', 'stop_requested',
                     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')),
    instance_id uuid,
    executor_id text,
    fence       bigint,
    detail      jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE run_events IS
    'What happened to each run, each row written in the transaction that made it happen. '
    'An instance has one claimed event and one event named after its end.';
CREATE INDEX run_events_by_run ON run_events (run_id, id);
