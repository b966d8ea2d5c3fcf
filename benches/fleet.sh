#!/usr/bin/env bash
# What a fleet costs and how fast it is, on one machine: from submit to the command's first instruction, an idle node, and
# a kill -9 of a node with eight commands beside another node of its host. About a minute and a half.
#
#   apt-get install postgresql
#   cargo build --release && benches/fleet.sh [SUBMISSIONS]
set -euo pipefail
count=${1:-100}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"

node first --slots 8
sql -c 'CREATE TABLE submitted (run_id text, at timestamptz)'
# One by one on a connection that stays, as an application has it; in the C locale, which date needs to read no file for.
for n in $(seq "$count"); do
    echo "WITH queued AS (SELECT systole.submit('s-$n', argv => ARRAY['date', '+%s.%N'], env => '{\"LC_ALL\": \"C\"}'))
          INSERT INTO submitted SELECT 's-$n', statement_timestamp() FROM queued; SELECT pg_sleep(0.1);"
done | sql >/dev/null
sleep 1
for n in $(seq "$count"); do
    printf "s-%s,%s\n" "$n" "$("$systole" logs --no-timestamps "s-$n")"
done > "$dir/started.csv"
sql -c "CREATE TABLE seen (run_id text, at float8)" -c "\\copy seen FROM '$dir/started.csv' CSV"
sql -c "SELECT 'submit to exec: median ' || round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms))::numeric, 1) || ' ms, p99 '
               || round((percentile_cont(0.99) WITHIN GROUP (ORDER BY ms))::numeric, 1) || ' ms'
          FROM (SELECT (seen.at - extract(epoch FROM submitted.at)) * 1000 AS ms FROM seen JOIN submitted USING (run_id)) latencies"

ticks() { awk '{ print $14 + $15 }' "/proc/${nodes[0]}/stat"; }
before=$(ticks)
sleep 20
after=$(ticks)
rss=$(awk '/VmRSS/ { print $2 }' "/proc/${nodes[0]}/status")
private=$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/${nodes[0]}/smaps_rollup")
echo "idle node: $((rss / 1024)) MB resident, $((private / 1024)) MB private, $(((after - before) * 100 / (20 * $(getconf CLK_TCK)))) % of a core"

for n in $(seq 8); do sql -c "SELECT systole.submit('k-$n', argv => ARRAY['sleep', '100'])" >/dev/null; done
sleep 1
node second --slots 8
killed=$(date +%s.%N)
kill -9 "${nodes[0]}"
for _ in $(seq 200); do
    [ "$(sql -c "SELECT count(*) FROM systole.executor_instances WHERE attempt = 2 AND child_pid IS NOT NULL")" = 8 ] && break
    sleep 0.05
done
sql -c "SELECT 'kill -9 with 8 commands: all dead and filed after ' || round(1000 * (extract(epoch FROM max(at) FILTER (WHERE kind = 'crashed')) - $killed)::numeric)
               || ' ms, all claimed again after ' || round(1000 * (extract(epoch FROM max(at) FILTER (WHERE kind = 'claimed')) - $killed)::numeric) || ' ms'
          FROM systole.run_events WHERE run_id LIKE 'k-%'"
