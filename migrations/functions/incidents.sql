-- append_incident(): a crash, a takeover or a refused duplicate, to be counted. Waits for nobody.
--
-- Every so often whoever does this counts what has gathered, also where there is no node that does it.
CREATE OR REPLACE FUNCTION append_incident(p_kind text, p_cause text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO incidents (kind, cause) VALUES (p_kind, p_cause) RETURNING id INTO v_id;
    IF v_id % 500 = 0 THEN
        PERFORM count_incidents(10000);
    END IF;
END
$$;

-- count_incidents(): put into counters what has happened, in one transaction, so that the sum of both never goes back.
--
-- Never two at once, and whoever finds another at it does nothing: so no row of counters is ever waited for. A crash stays as
-- long as fleet_snapshot() looks back, and a bit; one in a transaction that has not ended yet is seen the next time. A host on which nothing has
-- crashed for as long as anything is kept is forgotten.
CREATE OR REPLACE FUNCTION count_incidents(p_limit integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('systole count ' || current_schema(), 0)) THEN
        RETURN;
    END IF;
    DELETE FROM counters WHERE kind = 'crash' AND raised_at < clock_timestamp() - (SELECT keep FROM settings);
    WITH counted AS (
        DELETE FROM incidents WHERE id IN (
            SELECT id FROM incidents
             WHERE kind <> 'crash' OR at < clock_timestamp() - interval '40 minutes'
             ORDER BY id LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING kind, host, cause, at
    )
    INSERT INTO counters AS c (kind, host, cause, count, raised_at)
    SELECT kind, host, cause, count(*), max(at) FROM counted GROUP BY kind, host, cause
        ON CONFLICT (kind, host, cause) DO UPDATE SET count = c.count + excluded.count, raised_at = greatest(c.raised_at, excluded.raised_at);
END
$$;
