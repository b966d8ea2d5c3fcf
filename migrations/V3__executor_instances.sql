CREATE TABLE executor_instances (
    instance_id       uuid PRIMARY KEY,
    run_id            text NOT NULL REFERENCES runs,
    attempt           integer NOT NULL CHECK (attempt > 0),
    fence             bigint NOT NULL,
    status            text NOT NULL CHECK (status IN
                          ('RUNNING', 'COMPLETED', 'FAILED', 'TIMED_OUT', 'CANCELLED', 'RELEASED', 'CRASHED')),
    executor_id       text NOT NULL,
    host              text NOT NULL,
    pid               integer NOT NULL,
    child_pid         integer,
    boot_id           text,
    pid_namespace     text,
    process_started   bigint,
    containment       text NOT NULL,
    purpose           text,
    stale_after       interval NOT NULL CHECK (stale_after > interval '0'),
    death_secret_hash bytea,
    started_at        timestamptz NOT NULL,
    last_heartbeat    timestamptz NOT NULL,
    ended_at          timestamptz,
    exit_code         integer,
    cause             text CHECK (cause IN ('proof', 'stale', 'forced', 'guard_lost')),
    phases_executed   bigint NOT NULL DEFAULT 0,
    stop_requested_at timestamptz,
    UNIQUE (run_id, attempt),
    CHECK ((status = 'RUNNING') = (ended_at IS NULL)),
    CHECK ((status = 'CRASHED') = (cause IS NOT NULL))
) WITH (fillfactor = 50);
COMMENT ON TABLE executor_instances IS
    'One tenure of one executor over one run. RUNNING until it ends, and never again. '
    'executor_id (PID@host) is for people; instance_id is the identity. '
    'last_heartbeat is not indexed and half of each page stays free, so that a heartbeat is a HOT update.';
COMMENT ON COLUMN executor_instances.process_started IS
    'Start of the supervising process in clock ticks since boot: with boot_id, pid_namespace and pid it names one process.';

-- The backstop behind the locked transitions: never the mechanism.
CREATE UNIQUE INDEX executor_instances_one_running ON executor_instances (run_id) WHERE status = 'RUNNING';
