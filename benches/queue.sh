#!/usr/bin/env bash
# Claim and finish of no-op runs with their full history: through the library, and the same statements sent raw, in turn.
# About a minute and a half, after the build.
#
#   apt-get install postgresql
#   cargo build --release && benches/queue.sh [RUNS] [WORKERS] [BATCH]
set -euo pipefail
cd "$(dirname "$0")/.."
systole=$PWD/target/release/systole
dir=$(mktemp -d /var/tmp/systole-bench.XXXXXX)
chmod 755 "$dir"
export SYSTOLE_EMBEDDED_DIR=$dir/postgres SYSTOLE_STATE_DIR=$dir/state SYSTOLE_EMBEDDED=1
cleanup() {
    "$systole" embedded stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap cleanup EXIT
"$systole" embedded start >/dev/null
"$systole" migrate >/dev/null
SYSTOLE_DATABASE_URL=$("$systole" embedded url) cargo bench --quiet --bench queue -- "$@"
