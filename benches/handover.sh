#!/usr/bin/env bash
# kill -9 of a supervisor, with a waiter on the same host: how long until the successor's command runs? And how much
# memory supervisor and guard use.
#
#   cargo build --release && benches/handover.sh [ROUNDS]       a second per round
set -euo pipefail
rounds=${1:-20}
cd "$(dirname "$0")/.."
systole=$PWD/target/release/systole
dir=$(mktemp -d /var/tmp/systole-bench.XXXXXX)
chmod 755 "$dir"
export SYSTOLE_EMBEDDED_DIR=$dir/postgres SYSTOLE_STATE_DIR=$dir/state
trap '"$systole" embedded stop >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
"$systole" embedded start >/dev/null
SYSTOLE_DATABASE_URL=$("$systole" embedded url)
export SYSTOLE_DATABASE_URL
"$systole" migrate >/dev/null

private_kb() { awk '/^Private/ {sum += $2} END {print sum}' "/proc/$1/smaps_rollup"; }
for round in $(seq "$rounds"); do
    "$systole" run -q "r$round" -- sh -c "setsid sleep 60 & echo up > $dir/up; sleep 60" &
    first=$!
    until [ -s "$dir/up" ]; do sleep 0.01; done
    "$systole" run --wait "r$round" -- sh -c "date +%s%N > $dir/next" 2> "$dir/waiter" &
    waiter=$!
    until grep -q 'waiting for' "$dir/waiter"; do sleep 0.01; done
    guard=$(pgrep -P "$first" -x deadman)
    echo "$(private_kb "$first") $(private_kb "$guard")" >> "$dir/memory"
    killed=$(date +%s%N)
    kill -9 "$first"
    wait "$first" 2>/dev/null || true
    wait "$waiter"
    echo $((($(cat "$dir/next") - killed) / 1000)) >> "$dir/took"
    rm -f "$dir/up" "$dir/next"
done
sort -n "$dir/took" | awk '{v[NR] = $1 / 1000} END {
    printf "hand-over ms: median %.1f   max %.1f   (%d rounds)\n", v[int((NR + 1) / 2)], v[NR], NR}'
sort -n "$dir/memory" | awk '{s[NR] = $1; g[NR] = $2} END {
    printf "private memory: supervisor %.1f MB, guard %.2f MB\n", s[int((NR + 1) / 2)] / 1024, g[int((NR + 1) / 2)] / 1024}'
