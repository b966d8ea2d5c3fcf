-- Keys are compared byte by byte. By the rules of a language their order comes from the C library, and where that changes (an upgrade
-- of the operating system, a standby on another one) an index is no longer sorted as it is searched: a run is not found, and begins a
-- second time beside itself.

-- All at once and before anything is built, in the order of those who submit: whoever has one of them by then may ask for the next. Given
-- up before PostgreSQL looks for a deadlock, which others would die of.
SET LOCAL lock_timeout = '500ms';
LOCK TABLE lanes, queues, runs, run_specs, executor_instances, run_events, poisoned, counters IN ACCESS EXCLUSIVE MODE;

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

-- What was known of these columns is gone, and prune() would read all of a long history. An empty table stays unknown: one that is
-- known to be empty is planned for as if it stayed so.
DO $$
DECLARE
    v_table   regclass;
    v_is_used boolean;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['runs', 'run_specs', 'executor_instances', 'run_events']::regclass[] LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', v_table) INTO v_is_used;
        IF v_is_used THEN
            EXECUTE format('ANALYZE %s (run_id)', v_table);
        END IF;
    END LOOP;
END
$$;
