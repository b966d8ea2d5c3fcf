# Sourced by the benches that need a database and nothing else: a private, migrated PostgreSQL that is gone when they end, and
# nodes on it. Sets systole, dir and url.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
systole=$PWD/target/release/systole
dir=$(mktemp -d /var/tmp/systole-bench.XXXXXX)
chmod 755 "$dir"
export SYSTOLE_EMBEDDED_DIR=$dir/postgres SYSTOLE_STATE_DIR=$dir/state SYSTOLE_EMBEDDED=1 SYSTOLE_LOG_FORMAT=text
export SYSTOLE_HTTP=off # several nodes on one host
nodes=()
cleanup() {
    [ ${#nodes[@]} = 0 ] || kill -9 "${nodes[@]}" 2>/dev/null || true
    "$systole" embedded stop >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap cleanup EXIT
"$systole" embedded start >/dev/null
"$systole" migrate >/dev/null
url=$("$systole" embedded url)

sql() { psql "$url" -qAt -v ON_ERROR_STOP=1 "$@"; }

# A node of this name, with its flags, ready; what it says goes to $dir/node-NAME.txt.
node() {
    local name=$1
    shift
    "$systole" node "$@" >"$dir/node-$name.txt" 2>&1 &
    nodes+=($!)
    disown # its end by kill is no news
    for _ in $(seq 100); do
        if grep -qs '^ready' "$dir/node-$name.txt"; then return; fi
        sleep 0.1
    done
    cat "$dir/node-$name.txt" >&2
    exit 1
}
