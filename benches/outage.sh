#!/usr/bin/env bash
# PostgreSQL is away for a minute and comes back, beside five nodes of 20 runs each: whether all commands live, how soon the
# first heartbeats are back, and how many connections are tried in each second. About two minutes; root is not needed, but
# without a freezer the commands are killed, which is what the defaults promise there.
#
#   apt-get install postgresql
#   cargo build --release && benches/outage.sh [SECONDS]
set -euo pipefail
seconds=${1:-60}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
# By TCP, where the kernel counts what is tried.
port=$(cat "$dir/postgres/port")
SYSTOLE_DATABASE_URL="host=127.0.0.1 port=$port user=systole dbname=systole password=$(cat "$dir/postgres/password")"
export SYSTOLE_DATABASE_URL SYSTOLE_EMBEDDED=
for n in 1 2 3 4 5; do node "$n" --slots 20 --allow-submitted-commands; done
sql -o /dev/null -c "SELECT systole.submit('r' || n, argv => ARRAY['sleep', '1000']) FROM generate_series(1, 100) n"
beaten() { sql -c "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL AND last_heartbeat > to_timestamp($1)"; }
for _ in $(seq 600); do
    if [ "$(beaten 0)" = 100 ]; then break; fi
    sleep 0.1
done
sleep 5
tried() { awk '/^Tcp: [0-9]/ { print $6 }' /proc/net/snmp; }
"$systole" embedded stop >/dev/null
before=$(tried)
worst=0
for _ in $(seq "$seconds"); do
    a=$(tried)
    sleep 1
    b=$(tried)
    worst=$((b - a > worst ? b - a : worst))
done
echo "while it is away: $((($(tried) - before) / seconds)) connections tried in a second, at most $worst"
"$systole" embedded start >/dev/null
up=$(date +%s.%N)
before=$(tried)
for _ in $(seq 300); do
    if [ "$(beaten "$up")" = 100 ]; then break; fi
    sleep 0.05
done
echo "all 100 have beaten $(awk -v a="$up" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s after it is back; connections tried until then: $(($(tried) - before))"
sleep 10
sql <<SQL
SELECT 'after $seconds s away: running ' || count(*) FILTER (WHERE status = 'RUNNING') || ' of 100, ended in another way '
       || count(*) FILTER (WHERE status <> 'RUNNING') FROM systole.executor_instances;
SELECT 'takeovers ' || count(*) FROM systole.run_events WHERE kind = 'crashed';
SQL
echo "freezes $(cat "$dir"/node-*.txt | grep -c 'The command is' || true), thaws $(cat "$dir"/node-*.txt | grep -c 'the command goes on' || true)"
