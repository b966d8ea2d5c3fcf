#!/usr/bin/env bash
# Claim and finish of no-op runs with their full history: through the library, and the same statements sent raw, in turn.
# About a minute and a half, after the build.
#
#   apt-get install postgresql
#   cargo build --release && benches/queue.sh [RUNS] [WORKERS] [BATCH]
set -euo pipefail
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
SYSTOLE_DATABASE_URL=$url cargo bench --quiet --bench queue -- "$@"
