ALTER TABLE settings ADD COLUMN keep interval NOT NULL DEFAULT '30 days';
COMMENT ON COLUMN settings.keep IS 'Nodes prune what ended longer ago.';

CREATE TABLE queues (
    queue       text PRIMARY KEY CHECK (queue ~ '^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$'),
    paused_at   timestamptz,
    running_max integer CHECK (running_max > 0)
);
COMMENT ON TABLE queues IS
    'Queues that somebody has paused or limited; any other queue needs no row. Whoever claims from a limited one locks its row and counts.';

CREATE TABLE lanes (
    lane_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue        text NOT NULL,
    requirements jsonb NOT NULL DEFAULT '{}',
    UNIQUE (queue, requirements)
);
COMMENT ON TABLE lanes IS
    'A queue and what its runs require of a node. A node looks only into the lanes that it can serve, so that a million '
    'runs it may not take do not stand before the one it may.';

ALTER TABLE runs
    ADD COLUMN lane_id       integer REFERENCES lanes,
    ADD COLUMN priority      smallint NOT NULL DEFAULT 0,
    ADD COLUMN available_at  timestamptz,
    ADD COLUMN claim_order   timestamptz,
    ADD COLUMN max_attempts  integer NOT NULL DEFAULT 1 CHECK (max_attempts > 0),
    ADD COLUMN failures      integer NOT NULL DEFAULT 0,
    ADD COLUMN crashes_max   integer NOT NULL DEFAULT 3 CHECK (crashes_max > 0),
    ADD COLUMN crashes       integer NOT NULL DEFAULT 0,
    ADD COLUMN backoff       interval NOT NULL DEFAULT '10 seconds' CHECK (backoff >= interval '0'),
    ADD COLUMN no_retry      integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN restart_requested boolean NOT NULL DEFAULT false,
    ADD COLUMN timeout       interval CHECK (timeout > interval '0'),
    ADD COLUMN stall_timeout interval CHECK (stall_timeout > interval '0');
COMMENT ON COLUMN runs.lane_id IS 'NULL for a run by hand or of a library: those are never started by a node.';
COMMENT ON COLUMN runs.available_at IS 'Not before this moment: set by submit, and by a retry with its backoff.';
COMMENT ON COLUMN runs.claim_order IS
    'Nodes take the lowest first: a minute earlier for each point of priority. It does not change while a run waits, so that '
    'it can be indexed, and no run is overtaken for ever. NULL until the run is due.';

CREATE INDEX runs_to_claim ON runs (lane_id, claim_order) WHERE status = 'QUEUED' AND claim_order IS NOT NULL;
CREATE INDEX runs_to_come ON runs (available_at) WHERE status = 'QUEUED' AND claim_order IS NULL;

CREATE INDEX runs_to_prune ON runs (updated_at) WHERE status NOT IN ('QUEUED', 'RUNNING');
CREATE INDEX executor_instances_barring ON executor_instances (run_id) WHERE bars_successor;

CREATE TABLE run_specs (
    run_id  text PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    command text,
    argv    text[],
    env     jsonb NOT NULL DEFAULT '{}',
    meta    jsonb,
    CHECK ((command IS NULL) <> (argv IS NULL)),
    CHECK (argv IS NULL OR (cardinality(argv) > 0 AND array_position(argv, NULL) IS NULL))
);
COMMENT ON TABLE run_specs IS
    'What a node is to start: a command that it knows by name, or an argv. Apart from runs, because it may hold secrets.';

ALTER TABLE run_events DROP CONSTRAINT run_events_kind_check;
ALTER TABLE run_events ADD CONSTRAINT run_events_kind_check CHECK (kind IN
    ('submitted', 'claimed', 'refused', 'stop_requested', 'unbarred', 'retried', 'restart_requested',
     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')) NOT VALID;
