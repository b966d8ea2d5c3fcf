#!/usr/bin/env bash
# How long a command waits for its worktree, against `git worktree add` alone: benches/worktree.sh [FILES] [TRIES]. Takes a release
# build.
set -euo pipefail
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
files=${1:-10000}
tries=${2:-11}
repository=$dir/repository
git init -q "$repository"
cd "$repository"
for folder in $(seq 0 $((files / 100))); do mkdir "d$folder"; done
awk -v files="$files" 'BEGIN { for (n = 1; n <= files; n++) { f = "d" int(n / 100) "/f" n ".txt"; for (i = n; i < n + 200; i++) print i >f; close(f) } }'
git add -A
git -c user.name=bench -c user.email=bench@localhost commit -qm "$files files"
now() { date +%s%N; }
# When the command has started, less when it was asked for.
start() {
    local begun
    begun=$(now)
    echo $((($("$systole" run -q "$@" -- date +%s%N) - begun) / 1000))
}
start warm >/dev/null
# One after the other, so that whatever else goes on on the machine meets all of them.
for try in $(seq "$tries"); do
    sync
    begun=$(now)
    git worktree add -q --detach "$dir/plain"
    echo "alone $((($(now) - begun) / 1000))"
    sync
    echo "without $(start "without$try")"
    echo "with $(start "with$try" --workspace-repo .)"
    git worktree remove --force "$dir/plain"
    "$systole" workspace clean >/dev/null
done >"$dir/times"
median() { sed -n "s/^$1 //p" "$dir/times" | sort -n | sed -n "$(((tries + 1) / 2))p"; }
alone=$(median alone) without=$(median without) with=$(median with)
echo "git worktree add: $((alone / 1000)) ms; a start without: $((without / 1000)) ms; a start with: $((with / 1000)) ms"
echo "the worktree: $(((with - without) / 1000)) ms, $(((with - without) * 100 / alone)) % of git worktree add"
