#!/usr/bin/env bash
# Small tools from the distribution's packages.
set -euo pipefail
ARGUMENTS="$*"
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'X'
tools.sh [PACKAGE…]
Installs packages; without names, nload, which shows the network's load.
X
}

main() {
    local name
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    (($#)) || set -- nload
    for name in "$@"; do
        [[ $name =~ ^[a-z0-9][a-z0-9.+-]+$ ]] || wrong_usage "'$name' is no name of a package"
    done
    need_root
    take_turn
    need_packages "$@"
}

main "$@"
