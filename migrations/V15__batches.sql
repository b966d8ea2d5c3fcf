-- A systole supervise works on the run, for a batch; there may be several, on several machines.
ALTER TABLE run_events DROP CONSTRAINT run_events_kind_check;
ALTER TABLE run_events ADD CONSTRAINT run_events_kind_check CHECK (kind IN
    ('submitted', 'supervised', 'claimed', 'readopted', 'refused', 'stop_requested', 'unbarred', 'retried', 'restart_requested',
     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')) NOT VALID;
