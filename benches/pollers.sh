#!/usr/bin/env bash
# What a thousand idle nodes cost PostgreSQL: their statements at their rates (each a claim every 5 s, a sweep every second, two
# heartbeats every 4 s), on one empty queue and beside as many running instances as you say. About half a minute.
#
#   apt-get install postgresql postgresql-contrib
#   cargo build --release && benches/pollers.sh [RUNNING]
set -euo pipefail
running=${1:-0}
seconds=20
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
for pgbench in /usr/lib/postgresql/*/bin/pgbench; do :; done # the newest
psql "$url" -qAt -o /dev/null -c "SELECT systole.submit('r' || n, command => 'noop') FROM generate_series(1, $running) n" \
    -c "SELECT systole.claim_queued('{default}', '{}', '{noop}', false, ARRAY(SELECT gen_random_uuid() FROM generate_series(1, $running)),
            array_fill(NULL::bytea, ARRAY[$running]), '1@h', 'h', 1, NULL, NULL, NULL, 'none', 60000, '1000.0.0') WHERE $running > 0"

cat >"$dir/claim.sql" <<SQL
SELECT systole.claim_queued('{default}', '{}', '{noop}', false, ARRAY[gen_random_uuid(), gen_random_uuid()], ARRAY[NULL, NULL]::bytea[],
    '1@h', 'h', 1, NULL, NULL, NULL, 'none', 30000, '1000.0.0');
SQL
cat >"$dir/sweep.sql" <<SQL
SELECT systole.reap('1@h', clock_timestamp() - interval '1 hour', clock_timestamp(), 1000, 50);
SQL
cat >"$dir/beat.sql" <<SQL
SELECT systole.beat('{}', '{}', '{}');
SQL
cat >"$dir/node_beat.sql" <<SQL
\set n random(1, 1000)
SELECT systole.node_beat(md5(:n::text)::uuid, '1@h' || :n, 'h' || :n, '1000.0.0', '{default}', '{}', '{noop}', false, 2, 0, 'ready', 30000);
SQL
chmod 644 "$dir"/*.sql

ticks() { # all processes of that server
    local total=0 pid parent
    parent=$(head -1 "$SYSTOLE_EMBEDDED_DIR/data/postmaster.pid")
    for pid in "$parent" $(pgrep -P "$parent"); do
        total=$((total + $(awk '{ print $14 + $15 + $16 + $17 }' "/proc/$pid/stat" 2>/dev/null || echo 0)))
    done
    echo "$total"
}
before=$(ticks)
# Ten connections stay open behind the measurement, so that their time is still theirs when it is read.
"$pgbench" -n -c 10 -j 1 -M prepared -R 1700 -T "$((seconds + 3))" -f "$dir/claim.sql@200" -f "$dir/sweep.sql@1000" -f "$dir/beat.sql@250" \
    -f "$dir/node_beat.sql@250" "$url" >"$dir/pgbench.txt" 2>&1 &
sleep "$seconds"
after=$(ticks)
wait
grep -E '^tps|^latency average' "$dir/pgbench.txt"
echo "1000 idle nodes beside $running running instances: $(((after - before) * 100 / (seconds * $(getconf CLK_TCK)))) % of a core"
