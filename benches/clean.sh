#!/usr/bin/env bash
# What `systole workspace clean` takes for many worktrees, each with work that it keeps, against `git worktree remove --force` of as many,
# which keeps nothing: benches/clean.sh [WORKTREES] [TRIES]. Takes a release build.
set -euo pipefail
# shellcheck source=benches/server.bash
. "$(dirname "$0")/server.bash"
worktrees=${1:-500}
tries=${2:-3}
repository=$dir/repository
git init -q "$repository"
cd "$repository"
for n in $(seq 100); do seq "$n" $((n + 200)) >"f$n.txt"; done
git add -A
git -c user.name=bench -c user.email=bench@localhost commit -qm "100 files"
# Milliseconds that it takes.
took() {
    local begun
    sync
    begun=$(date +%s%N)
    "$@" >>"$dir/said" 2>&1
    echo $((($(date +%s%N) - begun) / 1000000))
}
remove() { for n in $(seq "$worktrees"); do git worktree remove --force "$dir/plain$n"; done; }
# Each alone in the repository: git goes through all that are there for each that it removes.
for try in $(seq "$tries"); do
    for n in $(seq "$worktrees"); do
        git worktree add -q --detach "$dir/plain$n"
        echo "$n" >"$dir/plain$n/new.txt"
    done
    echo "alone $(took remove)"
    # shellcheck disable=SC2016 # the command's own variable
    seq "$worktrees" | xargs -P 4 -I{} "$systole" run -q "r$try-{}" --workspace-repo . -- sh -c 'echo "$SYSTOLE_RUN_ID" >new.txt' 2>/dev/null
    echo "list $(took "$systole" workspace list)"
    echo "clean $(took "$systole" workspace clean)"
done >"$dir/times"
tail -1 "$dir/said"
median() { sed -n "s/^$1 //p" "$dir/times" | sort -n | sed -n "$(((tries + 1) / 2))p"; }
alone=$(median alone) clean=$(median clean)
echo "$worktrees worktrees: git worktree remove --force: $alone ms; clean: $clean ms, $((clean * 100 / alone)) %; list: $(median list) ms"
