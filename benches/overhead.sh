#!/usr/bin/env bash
# What a lock adds to a command: bare, flock, etcdctl lock and systole run, side by side, in one run of about a minute.
#
#   apt-get install hyperfine etcd-server etcd-client postgresql util-linux jq
#   cargo build --release && benches/overhead.sh [ROUNDS]
#
# All servers are on this machine, warm, with durable defaults. Prints medians of ROUNDS runs, and what each adds.
set -euo pipefail
rounds=${1:-40}
cd "$(dirname "$0")/.."
systole=$PWD/target/release/systole
dir=$(mktemp -d /var/tmp/systole-bench.XXXXXX)
chmod 755 "$dir"
export SYSTOLE_EMBEDDED_DIR=$dir/postgres SYSTOLE_STATE_DIR=$dir/state
etcd_pid=
cleanup() {
    [ -z "$etcd_pid" ] || kill "$etcd_pid" 2>/dev/null || true
    "$systole" embedded stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap cleanup EXIT

etcd --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
    --listen-peer-urls http://127.0.0.1:23800 >"$dir/etcd.log" 2>&1 &
etcd_pid=$!
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://127.0.0.1:23790
for _ in $(seq 100); do etcdctl endpoint health >/dev/null 2>&1 && break; sleep 0.1; done

"$systole" embedded start >/dev/null
SYSTOLE_DATABASE_URL=$("$systole" embedded url)
export SYSTOLE_DATABASE_URL
"$systole" migrate >/dev/null

hyperfine --shell=none --warmup 5 --runs "$rounds" --export-json "$dir/result.json" --style none \
    -n bare 'true' \
    -n flock "flock $dir/lock true" \
    -n 'etcdctl lock' 'etcdctl lock bench true' \
    -n 'systole run' "$systole run -q bench -- true" \
    -n 'systole run (cgroup)' "$systole run -q --containment cgroup bench -- true" \
    -n 'systole run (subreaper)' "$systole run -q --containment subreaper bench -- true" >/dev/null 2>&1

jq -r '.results as $r | ($r[0].median * 1000) as $bare | ($r[2].median * 1000 - $bare) as $etcd
    | "command                    median ms   adds ms   x etcdctl",
      ($r[] | (.median * 1000) as $m | [(.command + " " * 26)[:26], ($m * 100 | round / 100 | tostring),
        (($m - $bare) * 100 | round / 100 | tostring), ((($m - $bare) / $etcd) * 100 | round / 100 | tostring)] | join("   "))' \
    "$dir/result.json"
