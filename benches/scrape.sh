#!/usr/bin/env bash
# What a scrape of a node costs that is at work on many runs at once: benches/scrape.sh [RUNS]. Takes a release build, curl and
# psql, and some 5 MB of memory for each run.
set -euo pipefail
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
runs=${1:-1000}
scrapes=100
ulimit -n "$(ulimit -Hn)"
SYSTOLE_HTTP=127.0.0.1:0 node one --slots "$runs" --allow-submitted-commands
address=$(sed -n 's/.*metrics at \(http.*\)/\1/p' "$dir/node-one.txt")
for n in $(seq "$runs"); do echo "{\"run_id\": \"r$n\", \"argv\": [\"sleep\", \"600\"]}"; done >"$dir/runs.jsonl"
"$systole" submit -f "$dir/runs.jsonl" >/dev/null
started() { curl -s "$address" | sed -n 's/^systole_child_starts_total //p'; }
for _ in $(seq 3000); do
    [ "$(started)" -lt "$runs" ] || break
    sleep 0.1
done
curl -s "$address" | grep -E "^systole_(runs_running|child_starts_total|freezes_total)|^process_(open_fds|resident)"
echo "series: $(curl -s "$address" | grep -vc '^#')"
beats() { curl -s "$address" | sed -n 's/^systole_heartbeat_lease_used_ratio_count //p'; }
before=$(beats)
for _ in $(seq "$scrapes"); do curl -s -o /dev/null -w '%{time_total}\n' "$address"; done |
    sort -n | awk '{ t[NR] = $1 * 1000 } END { printf "scrape: median %.2f ms, worst of %d %.2f ms\n", t[int(NR / 2) + 1], NR, t[NR] }'
sleep 8
echo "renewals of leases meanwhile: $(($(beats) - before))"
