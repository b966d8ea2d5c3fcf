#!/usr/bin/env bash
# Whether a claim costs the same behind a long history and beside a long queue for others: with 1,000 finished runs, and then with
# as many as you say (each with its instance and its events), and a tenth of that queued for others. A minute for each million.
#
#   apt-get install postgresql
#   cargo build --release && benches/history.sh [RUNS]
set -euo pipefail
runs=${1:-10000000}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"

# As executors make them: by time, so that neighbours in time are neighbours in the index.
sql <<'SQL'
CREATE FUNCTION uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || left(md5(random()::text), 3)
            || '8' || left(md5(random()::text), 15))::uuid
$$;
SQL

sql -o /dev/null -c "SELECT systole.submit('mine-' || n, command => 'noop', queue => 'mine') FROM generate_series(1, 20000) n" \
    -c "SELECT systole.submit('other', command => 'noop', queue => 'other', labels => '{\"gpu\": \"yes\"}')"

fill() { # from to: finished runs; and a tenth of that for others
    sql -c "INSERT INTO systole.runs (run_id, status, attempt, lane_id) SELECT 'h-' || n, 'COMPLETED', 1, 1 FROM generate_series($1, $2) n" \
        -c "INSERT INTO systole.executor_instances (instance_id, run_id, attempt, fence, status, executor_id, host, pid, containment,
                stale_after, started_at, last_heartbeat, ended_at)
            SELECT uuid_v7(), 'h-' || n, 1, n, 'COMPLETED', '1@h', 'h', 1, 'none', '30 s', now(), now(), now() FROM generate_series($1, $2) n" \
        -c "INSERT INTO systole.run_events (run_id, kind) SELECT 'h-' || n, k FROM generate_series($1, $2) n, unnest('{claimed,completed}'::text[]) k" \
        -c "INSERT INTO systole.runs (run_id, status, lane_id, claim_order, available_at)
            SELECT 'o-' || n, 'QUEUED', (SELECT lane_id FROM systole.lanes WHERE queue = 'other'), now() - interval '1 day', now()
              FROM generate_series($1, $2, 10) n"
}

measure() {
    sql <<'SQL'
CREATE TEMPORARY TABLE took (what text, ms float8);
DO $$
DECLARE
    began timestamptz;
    ids   uuid[];
    fences bigint[];
BEGIN
    FOR n IN 1..200 LOOP
        ids := ARRAY(SELECT uuid_v7() FROM generate_series(1, 8));
        began := clock_timestamp();
        SELECT array_agg(c.instance_id), array_agg(c.fence) INTO ids, fences FROM systole.claim_queued('{mine,other}', '{}', '{noop}', false,
            ids, array_fill(NULL::bytea, ARRAY[8]), '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0') c;
        INSERT INTO took VALUES ('claim of 8', 1000 * extract(epoch FROM clock_timestamp() - began));
        COMMIT;
        began := clock_timestamp();
        PERFORM systole.beat(ids, array_fill(0::bigint, ARRAY[8]), array_fill(NULL::integer, ARRAY[8]));
        INSERT INTO took VALUES ('beat of 8', 1000 * extract(epoch FROM clock_timestamp() - began));
        COMMIT;
        began := clock_timestamp();
        PERFORM systole.finish_all(ids, fences, array_fill('COMPLETED'::text, ARRAY[8]), array_fill(0, ARRAY[8]),
            array_fill(NULL::text, ARRAY[8]), array_fill(0::bigint, ARRAY[8]), array_fill('{}'::jsonb, ARRAY[8]));
        INSERT INTO took VALUES ('finish of 8', 1000 * extract(epoch FROM clock_timestamp() - began));
        COMMIT;
        began := clock_timestamp();
        UPDATE systole.takeover_brake SET swept_at = '-infinity';
        PERFORM systole.reap('1@h', '-infinity', NULL, 0, 50);
        INSERT INTO took VALUES ('sweep', 1000 * extract(epoch FROM clock_timestamp() - began));
        COMMIT;
    END LOOP;
END
$$;
SELECT '  ' || what || ': median ' || round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 2) || ' ms, p99 '
           || round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 2) || ' ms' FROM took GROUP BY what ORDER BY what;
SQL
}

fill 1 1000
echo "1,000 finished runs:"
measure
fill 1001 "$runs"
sql -c "VACUUM ANALYZE systole.runs, systole.executor_instances, systole.run_events" -c CHECKPOINT
echo "$runs finished runs, $((runs / 10)) queued for others:"
measure
