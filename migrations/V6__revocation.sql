ALTER TABLE executor_instances
    ADD COLUMN bars_successor boolean NOT NULL DEFAULT false CHECK (NOT bars_successor OR status = 'CRASHED');
COMMENT ON COLUMN executor_instances.bars_successor IS
    'Taken away by force from an executor that may still be at work: until that one reports its end, its death is '
    'certified, or it has been silent for stale_after, no successor is granted.';

ALTER TABLE run_events DROP CONSTRAINT run_events_kind_check;
ALTER TABLE run_events ADD CONSTRAINT run_events_kind_check CHECK (kind IN
    ('claimed', 'refused', 'stop_requested', 'unbarred',
     'completed', 'failed', 'timed_out', 'cancelled', 'released', 'crashed')) NOT VALID;
