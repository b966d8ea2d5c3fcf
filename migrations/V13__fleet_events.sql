CREATE TABLE fleet_events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind    text NOT NULL CHECK (kind IN ('paused', 'resumed', 'limited', 'drain_requested', 'failed_over')),
    subject text NOT NULL,
    by      text,
    reason  text,
    detail  jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE fleet_events IS
    'What people told queues (subject: the queue) and nodes (the executor id or host), and what befell the database (its history): '
    'all that is not about one run. Each row was written in the transaction that made it happen, and stays as long as runs do.';
