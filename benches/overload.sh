#!/usr/bin/env bash
# Executors beside a database that has no processor left: pgbench keeps all cores busy while five nodes of 100 runs each beat.
# Whether anybody is frozen or taken over for it, how late heartbeats are, and how long beat() takes.
#
#   apt-get install postgresql postgresql-contrib
#   cargo build --release && benches/overload.sh [SECONDS] [CLIENTS]
set -euo pipefail
seconds=${1:-600}
clients=${2:-32}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
for pgbench in /usr/lib/postgresql/*/bin/pgbench; do :; done # the newest
"$pgbench" -i -q -s 20 "$url" >/dev/null 2>&1
for n in 1 2 3 4 5; do node "$n" --slots 100 --allow-submitted-commands; done
sql -o /dev/null -c "SELECT systole.submit('r' || n, argv => ARRAY['sleep', '$((seconds + 600))'], crashes_max => 100) FROM generate_series(1, 500) n"
for _ in $(seq 600); do
    [ "$(sql -c "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL")" -lt 500 ] || break
    sleep 0.1
done
# Mostly reading, so that it is the processors that are busy, and not the disk.
"$pgbench" -n -b select-only@20 -b tpcb-like@1 -c "$clients" -j 2 -T "$((seconds + 10))" "$url" >"$dir/pgbench.txt" 2>&1 &
idle() { awk '/^cpu / { print $5 + $6, $2 + $3 + $4 + $5 + $6 + $7 + $8 }' /proc/stat; }
read -r idle_before all_before < <(idle)
late=0
for _ in $(seq $((seconds / 5))); do
    sleep 5
    # Behind the pgbench clients as well, so that it is as late as a heartbeat.
    now=$(sql -c "SELECT max(extract(epoch FROM clock_timestamp() - last_heartbeat))::numeric(9, 1) FROM systole.executor_instances WHERE ended_at IS NULL")
    late=$(printf '%s\n%s\n' "$late" "$now" | sort -n | tail -1)
done
read -r idle_after all_after < <(idle)
wait
echo "processors busy: $((100 - 100 * (idle_after - idle_before) / (all_after - all_before))) %"
echo "$clients clients of pgbench for $seconds s: $(grep '^tps' "$dir/pgbench.txt"); load $(cut -d ' ' -f 1 /proc/loadavg)"
echo "running $(sql -c "SELECT count(*) FROM systole.executor_instances WHERE status = 'RUNNING'"), oldest heartbeat seen $late s"
echo "takeovers $(sql -c "SELECT count(*) FROM systole.run_events WHERE kind = 'crashed'"), freezes $(cat "$dir"/node-*.txt | grep -c 'The command is' || true)"
