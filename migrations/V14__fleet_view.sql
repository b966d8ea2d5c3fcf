CREATE TABLE incidents (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind            text NOT NULL CHECK (kind IN ('crash', 'takeover', 'refusal')),
    host            text NOT NULL DEFAULT '',
    cause           text NOT NULL DEFAULT '',
    executor_id     text,
    acknowledged_at timestamptz
);
COMMENT ON TABLE incidents IS
    'Crashes, takeovers and refused duplicates that are not counted into counters yet, each put here in the transaction that made it '
    'happen. A row of its own waits for nobody; a number that is raised would be a lock that all who declare a death wait for.';
COMMENT ON COLUMN incidents.acknowledged_at IS 'Somebody knows of this crash (systole forget): it rings no more.';

CREATE TABLE counters (
    kind      text NOT NULL,
    host      text NOT NULL,
    cause     text NOT NULL,
    count     bigint NOT NULL,
    raised_at timestamptz NOT NULL,
    PRIMARY KEY (kind, host, cause)
);
COMMENT ON TABLE counters IS
    'Incidents of the past, counted. How many there ever were is this and what incidents still has.';

CREATE TABLE poisoned (
    run_id text PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE poisoned IS
    'Runs that FAILED because their executors died too often. Some may have been queued again since.';

ALTER TABLE nodes
    ADD COLUMN name         text,
    ADD COLUMN http_address text;
ALTER TABLE nodes ADD CONSTRAINT nodes_name_check CHECK (name ~ '^[A-Za-z0-9._-]{1,63}$') NOT VALID;
ALTER TABLE nodes ADD CONSTRAINT nodes_http_address_check CHECK (char_length(http_address) <= 300) NOT VALID;
COMMENT ON COLUMN nodes.name IS 'What people and metrics call it. NULL of a version that has none: then it goes by its host.';
COMMENT ON COLUMN nodes.http_address IS 'Where its metrics are, as HOST:PORT. NULL where they are not served.';

ALTER TABLE fleet_events DROP CONSTRAINT fleet_events_kind_check;
ALTER TABLE fleet_events ADD CONSTRAINT fleet_events_kind_check CHECK (kind IN
    ('paused', 'resumed', 'limited', 'drain_requested', 'failed_over', 'forgotten')) NOT VALID;
