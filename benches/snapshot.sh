#!/usr/bin/env bash
# What a look at the whole fleet costs PostgreSQL: with 1,000 nodes, 10,000 running instances and 90,000 queued runs, and then with a
# million queued. Two minutes, and half a minute for each 100,000 more.
#
#   apt-get install postgresql
#   cargo build --release && benches/snapshot.sh [QUEUED]
set -euo pipefail
queued=${1:-1000000}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"

sql -o /dev/null -c "SELECT systole.submit('r-' || n, command => 'noop', queue => 'busy' || n % 5) FROM generate_series(1, 10000) n" \
    -c "SELECT systole.submit('later-' || n, command => 'noop', queue => 'queue' || n % 5, after => '1 hour') FROM generate_series(1, 1000) n" \
    -c "SELECT systole.node_beat(md5(n::text)::uuid, n || '@host' || n, 'host' || n, '0.1.0', '{default}', '{\"zone\": \"a\"}', '{noop}', false, 10, 10,
                'ready', 600000, 'node-' || n, 'host' || n || ':7070') FROM generate_series(1, 1000) n"
sql <<'SQL'
UPDATE systole.settings SET stale_after_max = '1 hour';
DO $$
BEGIN
    FOR n IN 1..1000 LOOP
        PERFORM systole.claim_queued('{busy0,busy1,busy2,busy3,busy4}', '{}', '{noop}', false, ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 10)),
            array_fill(NULL::bytea, ARRAY[10]), n || '@host' || n, 'host' || n, n, NULL, NULL, NULL, 'none', 3600000, '1000.0.0');
        COMMIT;
    END LOOP;
END
$$;
SQL

submit() { # from to
    sql -o /dev/null -c "SELECT systole.submit('q-' || n, command => 'noop', queue => 'queue' || n % 5) FROM generate_series($1, $2) n"
}

measure() {
    sql <<'SQL'
CREATE TEMPORARY TABLE took (ms float8);
DO $$
DECLARE
    began timestamptz;
BEGIN
    FOR n IN 1..100 LOOP
        began := clock_timestamp();
        PERFORM length(systole.fleet_snapshot()::text);
        COMMIT;
        INSERT INTO took VALUES (1000 * extract(epoch FROM clock_timestamp() - began));
        COMMIT;
    END LOOP;
END
$$;
SELECT '  a snapshot: median ' || round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 1) || ' ms, p99 '
           || round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 1) || ' ms' FROM took;
SQL
}

submit 1 89000
echo "1,000 nodes, 10,000 running instances, 90,000 queued runs, just submitted:"
measure
sql -c VACUUM
echo "the same, after autovacuum has come by:"
measure
submit 89001 "$queued"
echo "$queued queued:"
measure
