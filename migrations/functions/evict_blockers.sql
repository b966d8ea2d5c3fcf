-- evict_blockers(): who holds the rows of this run, and away with those who have no right to.
--
-- A transaction that called fence() holds the run until it ends. When its instance is silent, that transaction must not
-- keep its own successor out: it is terminated, where the owner of this function has pg_signal_backend. Its backends
-- are known by the advisory lock that fence() takes as a marker, so no stranger is ever hit. Where there is no marker,
-- the backends that hold row locks on our tables are named, and left alone.
CREATE OR REPLACE FUNCTION evict_blockers(p_run_id text, p_holder_is_dead boolean) RETURNS integer[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_key     bigint := fence_marker(p_run_id);
    v_here    oid := (SELECT oid FROM pg_database WHERE datname = current_database());
    v_fencing integer[];
    v_any     integer[];
    v_pid     integer;
BEGIN
    SELECT array_agg(DISTINCT pid) INTO v_fencing FROM pg_locks
     WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
       AND database = v_here
       AND (classid::bigint << 32 | objid::bigint) = v_key;
    IF v_fencing IS NULL THEN
        SELECT array_agg(DISTINCT pid) INTO v_any FROM pg_locks
         WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
           AND database = v_here -- a clone of this database has tables of the same numbers
           AND relation IN ('runs'::regclass, 'executor_instances'::regclass)
           AND mode IN ('RowShareLock', 'RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');
        RETURN v_any;
    END IF;
    IF p_holder_is_dead THEN
        FOREACH v_pid IN ARRAY v_fencing LOOP
            BEGIN
                PERFORM pg_terminate_backend(v_pid);
            EXCEPTION WHEN insufficient_privilege THEN
                NULL;  -- It is named all the same, and ends by its own idle-in-transaction timeout.
            END;
        END LOOP;
    END IF;
    RETURN v_fencing;
END
$$;
