-- Keys are compared byte by byte. By the rules of a language their order comes from the C library, and where that changes (an upgrade
-- of the operating system, a standby on another one) an index is no longer sorted as it is searched: a run is not found, and begins a
-- second time beside itself.
ALTER TABLE runs ALTER COLUMN run_id TYPE text COLLATE "C";
ALTER TABLE run_specs ALTER COLUMN run_id TYPE text COLLATE "C";
ALTER TABLE executor_instances ALTER COLUMN run_id TYPE text COLLATE "C";
ALTER TABLE run_events ALTER COLUMN run_id TYPE text COLLATE "C";
ALTER TABLE poisoned ALTER COLUMN run_id TYPE text COLLATE "C";
ALTER TABLE lanes ALTER COLUMN queue TYPE text COLLATE "C";
ALTER TABLE queues ALTER COLUMN queue TYPE text COLLATE "C";
ALTER TABLE counters
    ALTER COLUMN kind TYPE text COLLATE "C",
    ALTER COLUMN host TYPE text COLLATE "C",
    ALTER COLUMN cause TYPE text COLLATE "C";
