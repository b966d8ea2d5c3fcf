#!/usr/bin/env bash
# How long our statements keep their locks at 1,000 instances: heartbeats, refused claims, and whole attempts beside each
# other for SECONDS, then what pg_stat_statements has seen, and what it took including the commit.
#
#   apt-get install postgresql postgresql-contrib
#   cargo build --release && benches/locks.sh [SECONDS]
#
# A statement's time is an upper bound of its locks' time but for the commit, which pgbench's latency includes.
set -euo pipefail
seconds=${1:-20}
cd "$(dirname "$0")/.."
systole=$PWD/target/release/systole
dir=$(mktemp -d /var/tmp/systole-bench.XXXXXX)
chmod 755 "$dir"
export SYSTOLE_EMBEDDED_DIR=$dir/postgres SYSTOLE_STATE_DIR=$dir/state
trap '"$systole" embedded stop >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT

"$systole" embedded start >/dev/null
url=$("$systole" embedded url)
psql "$url" -qc "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'"
"$systole" embedded stop >/dev/null
"$systole" embedded start >/dev/null
url=$("$systole" embedded url)
"$systole" migrate --embedded >/dev/null
psql "$url" -qc 'CREATE EXTENSION pg_stat_statements'

claim() { # run id, instance id
    echo "SELECT verdict FROM systole.claim($1, $2, '1@bench', 'bench', 1, NULL, NULL, NULL, 'none', 600000, NULL, NULL, NULL, NULL, 0, false, false)"
}
for n in $(seq 1000); do
    echo "$(claim "'held-$n'" "md5('held-$n')::uuid");"
done | psql "$url" -q >/dev/null

cat > "$dir/beat.sql" <<SQL
\set n random(1, 1000)
SELECT verdicts FROM systole.beat(ARRAY[md5('held-' || :n)::uuid], ARRAY[0], ARRAY[1]);
SQL
cat > "$dir/node.sql" <<'SQL'
SELECT verdicts FROM systole.beat((SELECT array_agg(md5('held-' || n)::uuid) FROM generate_series(1, 100) n), array_fill(0::bigint, ARRAY[100]), array_fill(1, ARRAY[100]));
SQL
cat > "$dir/refused.sql" <<SQL
\set n random(1, 1000)
$(claim "'held-' || :n" "gen_random_uuid()");
SQL
cat > "$dir/attempt.sql" <<SQL
\set n random(1, 1000000000)
$(claim "'free-' || :n" "md5('free-' || :n)::uuid");
SELECT systole.finish(md5('free-' || :n)::uuid, (SELECT fence FROM systole.runs WHERE run_id = 'free-' || :n), 'COMPLETED', 0, NULL, 0, '{}');
SQL
psql "$url" -qc 'SELECT pg_stat_statements_reset()' >/dev/null
run() { # name, transactions a second, clients
    pgbench "$url" -n -M prepared -f "$dir/$1.sql" -R "$2" -c "$3" -T "$seconds" -r > "$dir/$1.txt" 2>&1 &
}
run beat 250 4
run node 5 1
run refused 100 4
run attempt 20 2
wait
psql "$url" <<'SQL'
SELECT substring(query FROM 'systole\.(\w+)') || CASE WHEN query LIKE '%array_agg%' THEN ' x 100' ELSE '' END AS statement,
       sum(calls) AS calls, round((sum(total_exec_time) / sum(calls))::numeric, 3) AS mean_ms,
       round(max(mean_exec_time + 3 * stddev_exec_time)::numeric, 2) AS mean_and_3_sigma_ms, round(max(max_exec_time)::numeric, 2) AS max_ms
  FROM pg_stat_statements WHERE query ~ 'systole\.(beat|claim|finish)\(' GROUP BY 1 ORDER BY 1;
SQL
echo 'with network and commit, pgbench (ms):'
grep -hE 'systole\.(beat|claim|finish)' "$dir"/*.txt | sed -E 's/^ *([0-9.]+) .*systole\.([a-z]+).*/\2 \1/' | sort
