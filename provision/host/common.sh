# shellcheck shell=bash
# Functions that the scripts in this folder share. Source this file; don't run it.
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
LOCK_SECONDS=600 # how long to wait for another process that installs packages

say() { printf '%s\n' "$*"; }

# fail CODE WHAT NEXT_STEP. Codes: 2 wrong usage, 3 a disk or folder in an unexpected state, 5 a remote failure.
fail() {
    printf 'error: %s\n  next step: %s\n' "$2" "$3" >&2
    exit "$1"
}

wrong_usage() { fail 2 "$1" "${0##*/} --help lists commands and options"; }

need_root() { ((EUID == 0)) || fail 2 "only root can do this" "sudo $0 ${ARGUMENTS:-}"; }

# Run one script at a time. After a lost connection, the previous one may still be running.
take_turn() {
    local lock="/run/larder-${0##*/}.lock"
    (umask 077 && : >>"$lock") # any user who can open a file can lock it
    exec 9>>"$lock"
    flock --wait 300 9 || fail 5 "another ${0##*/} is still running" "wait for it (ps aux), then run this again"
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
    # complete an interrupted installation
    patiently dpkg --configure -a || packages_failed "dpkg --configure -a"
    refresh_lists
    run_apt install --yes --no-install-recommends "${missing[@]}"
    say "installed ${missing[*]}"
}

# A new cloud image installs updates in its first minutes. Wait for that, whatever its result.
await_first_boot() {
    command -v cloud-init >/dev/null || return 0
    timeout 600 cloud-init status --wait >/dev/null 2>&1 9>&- || (($? != 124)) ||
        say "cloud-init isn't done after 10 minutes: continuing without waiting"
}

# When several scripts run, the lists are needed once.
refresh_lists() {
    [[ ! $(find /run/larder-lists -mmin -60 2>/dev/null) ]] || return 0
    run_apt update
    touch /run/larder-lists
}

run_apt() {
    patiently apt-get -qq -o Acquire::Retries=3 "$@" || packages_failed "apt-get $1"
}

# Repeat a command while another process holds a package lock. Print the last lines of a failure.
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
