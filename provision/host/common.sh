# shellcheck shell=bash
# What the scripts in this folder share; it is sourced, never run.
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive

say() { printf '%s\n' "$*"; }

# fail CODE WHAT NEXT_STEP: 2 is wrong usage, 3 a disk or folder that isn't what it should be, 5 something remote.
fail() {
    printf 'error: %s\n  next step: %s\n' "$2" "$3" >&2
    exit "$1"
}

wrong_usage() { fail 2 "$1" "${0##*/} --help shows what there is"; }

need_root() { ((EUID == 0)) || fail 2 "only root can do this" "sudo $0 ${ARGUMENTS:-}"; }

# One run at a time: after a lost connection, the step that it left behind may still be at work.
take_turn() {
    exec 9>"/run/lock/larder-${0##*/}"
    flock --wait 300 9 || fail 5 "another ${0##*/} is still at work" "wait for it (ps aux), then run this again"
}

# need_packages NAME…: install those that are missing.
need_packages() {
    local name missing=()
    for name in "$@"; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]]; then
            say "found the package $name"
        else
            missing+=("$name")
        fi
    done
    ((${#missing[@]})) || return 0
    dpkg --configure -a >/dev/null # what an interrupted installation left
    run_apt update
    run_apt install --yes --no-install-recommends "${missing[@]}"
    say "installed ${missing[*]}"
}

run_apt() {
    local log
    log=$(mktemp)
    if ! apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$log" 2>&1 9>&-; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        fail 5 "apt-get $1 failed (its last lines are above)" \
            "check that the server reaches its package mirror and knows these packages, then run this again"
    fi
    rm -f "$log"
}
