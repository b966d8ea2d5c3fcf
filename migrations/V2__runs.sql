CREATE TABLE runs (
    run_id     text PRIMARY KEY CHECK (run_id ~ '^[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}$'),
    status     text NOT NULL CHECK (status IN ('QUEUED', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'CRASHED')),
    attempt    integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    fence      bigint NOT NULL DEFAULT 0 CHECK (fence >= 0 AND fence < 9007199254740992),
    purpose    text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE runs IS
    'A unit of work. fence is the token of its newest instance and only grows; attempt is that instance''s number. '
    'A fence stays below 2^53, so that every language can hold it.';
CREATE INDEX runs_by_status ON runs (status, run_id);
