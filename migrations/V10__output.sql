CREATE TABLE run_output (
    instance_id uuid PRIMARY KEY REFERENCES executor_instances ON DELETE CASCADE,
    tail        bytea NOT NULL CHECK (length(tail) <= 65536),
    bytes_total bigint NOT NULL,
    bytes_lost  bigint NOT NULL DEFAULT 0,
    path        text NOT NULL,
    is_last     boolean NOT NULL,
    updated_at  timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02);
COMMENT ON TABLE run_output IS
    'The newest 64 kB of what an attempt has written, put here every 10 s while it changes, so that a crash can be read '
    'anywhere. All of it is on the host, at path. Apart from runs and their attempts, because it may hold secrets. '
    'It is compressed, and written anew each time: vacuum comes by early.';
COMMENT ON COLUMN run_output.bytes_lost IS 'What the disk of the host did not take.';
COMMENT ON COLUMN run_output.is_last IS 'The attempt has ended, and this is the end of its output.';

ALTER TABLE executor_instances ADD COLUMN message text;
ALTER TABLE executor_instances
    ADD CONSTRAINT executor_instances_message_check CHECK (char_length(message) <= 200) NOT VALID;
COMMENT ON COLUMN executor_instances.message IS 'What the command last said of its progress.';
