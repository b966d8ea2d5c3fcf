#!/usr/bin/env bash
# What a node costs while its runs do nothing: processor time of the node and of all its guards.
#
#   apt-get install postgresql
#   cargo build --release && benches/idle.sh [RUNS] [SECONDS]
set -euo pipefail
runs=${1:-100}
seconds=${2:-30}
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
node one --slots "$runs" --allow-submitted-commands
sql -o /dev/null -c "SELECT systole.submit('r' || n, argv => ARRAY['sleep', '10000']) FROM generate_series(1, $runs) n"
started() { sql -c "SELECT count(*) FROM systole.executor_instances WHERE child_pid IS NOT NULL"; }
for _ in $(seq 3000); do
    [ "$(started)" -lt "$runs" ] || break
    sleep 0.1
done
sleep 5 # for the last of the start
node=${nodes[0]}
guards=$(pgrep -P "$node" -x deadman)
# In nanoseconds, of all its threads: what is counted by ticks misses who sleeps again before the next one.
spent() { for pid in $1; do cat "/proc/$pid/task/"*/schedstat; done | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
node_before=$(spent "$node")
guards_before=$(spent "$guards")
sleep "$seconds"
share() { awk -v ns="$1" -v seconds="$seconds" 'BEGIN { printf "%.2f %% of a processor", ns / 1e7 / seconds }'; }
echo "$(started) idle runs for $seconds s: node $(share $(($(spent "$node") - node_before))), all guards together $(share $(($(spent "$guards") - guards_before)))"
