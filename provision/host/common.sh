# shellcheck shell=bash
# What the scripts in this folder share; it is sourced, never run.
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
LOCK_SECONDS=600 # for another process to be done with packages

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
    local lock="/run/larder-${0##*/}.lock"
    (umask 077 && : >>"$lock") # whoever may open a file may lock it
    exec 9>>"$lock"
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
    await_first_boot
    # what an interrupted installation left
    patiently dpkg --configure -a || packages_failed "dpkg --configure -a"
    refresh_lists
    run_apt install --yes --no-install-recommends "${missing[@]}"
    say "installed ${missing[*]}"
}

# A fresh cloud image upgrades and installs by itself in its first minutes. How that ended is not our affair.
await_first_boot() {
    command -v cloud-init >/dev/null || return 0
    timeout 600 cloud-init status --wait >/dev/null 2>&1 9>&- || (($? != 124)) ||
        say "cloud-init isn't done after 10 minutes, and isn't waited for any longer"
}

# A run of several scripts needs the lists once.
refresh_lists() {
    [[ ! $(find /run/larder-lists -mmin -60 2>/dev/null) ]] || return 0
    run_apt update
    touch /run/larder-lists
}

run_apt() {
    patiently apt-get -qq -o Acquire::Retries=3 "$@" || packages_failed "apt-get $1"
}

# Run it again as long as another process holds one of the locks; says the last lines of what failed.
patiently() {
    local log deadline=$((SECONDS + LOCK_SECONDS))
    log=$(mktemp)
    until "$@" >"$log" 2>&1 9>&-; do
        if ! grep -q -e 'Could not get lock' -e 'locked by .* process' "$log" || ((SECONDS >= deadline)); then
            tail -n 5 "$log" >&2
            rm -f "$log"
            return 1
        fi
        sleep 1
    done
    rm -f "$log"
}

packages_failed() {
    fail 5 "$1 failed (its last lines are above)" \
        "check that the server reaches its package mirror, knows these packages, and installs nothing else; run this again"
}
