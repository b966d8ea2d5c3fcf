-- rw_since(): when this server began to accept writes.
--
-- The postmaster's start alone does not move when the server recovers from a crash of one backend, nor when a standby
-- is promoted; the walwriter is started anew at the end of both. NULL when the walwriter cannot be seen (the owner of
-- this function lacks pg_read_all_stats): then nobody may conclude anything from the age of a heartbeat.
CREATE OR REPLACE FUNCTION rw_since() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN w.backend_start IS NOT NULL THEN greatest(pg_postmaster_start_time(), w.backend_start) END
      FROM (SELECT max(backend_start) AS backend_start FROM pg_stat_activity WHERE backend_type = 'walwriter') w
$$;
