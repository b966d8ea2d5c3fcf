CREATE TABLE nodes (
    node_id            uuid PRIMARY KEY,
    executor_id        text NOT NULL,
    host               text NOT NULL,
    version            text NOT NULL,
    queues             text[] NOT NULL,
    labels             jsonb NOT NULL,
    commands           text[] NOT NULL,
    starts_anything    boolean NOT NULL,
    slots              integer NOT NULL CHECK (slots > 0),
    running            integer NOT NULL DEFAULT 0,
    state              text NOT NULL CHECK (state IN ('starting', 'ready', 'draining', 'gone')),
    stale_after        interval NOT NULL,
    started_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_heartbeat     timestamptz NOT NULL DEFAULT clock_timestamp(),
    drain_requested_at timestamptz,
    drain_requested_by text
) WITH (fillfactor = 50);
COMMENT ON TABLE nodes IS
    'Who is here to start what is queued. For people: no decision about a run depends on it. One that fell silent is gone, '
    'whatever its state says.';
