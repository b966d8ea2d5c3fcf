-- lock_briefly(): how long this transaction waits for each of its locks. Whoever holds them may be frozen.
--
-- A caller whose statement may not take long (attempt_timeout is its statement_timeout) must hear who holds them before
-- it is cut off, or it would never get to evict_blockers(). A transition waits for two locks at most, run and instance.
-- One that applications call in transactions of their own has a SET lock_timeout as well: so their own bound comes back
-- when it returns.
CREATE OR REPLACE FUNCTION lock_briefly() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_bound_ms numeric := 1000 * extract(epoch FROM current_setting('statement_timeout')::interval);
BEGIN
    PERFORM set_config('lock_timeout', CASE WHEN v_bound_ms BETWEEN 1 AND 3000
        THEN greatest(v_bound_ms / 3, 1)::int ELSE 1000 END || 'ms', true);
END
$$;
