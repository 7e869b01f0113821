#!/usr/bin/env bash
# Docker Engine with the compose plugin, on Debian and Ubuntu.
set -euo pipefail
ARGUMENTS="$*"
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'X'
docker.sh [--from distribution|docker] [--user NAME]

  --from distribution   the distribution's packages (default): Debian 13 and newer, Ubuntu 22.04 and newer
  --from docker         Docker's own repository, download.docker.com, for all others and for the newest version
  --user NAME           may use Docker without sudo after the next login, which amounts to root access
An installed engine with compose stays unchanged, whatever its source.
X
}

main() {
    local from=distribution user=''
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    while (($#)); do
        (($# > 1)) || wrong_usage "$1 lacks its value"
        case $1 in --from) from=$2 ;; --user) user=$2 ;; *) wrong_usage "unknown option $1" ;; esac
        shift 2
    done
    [[ $from == distribution || $from == docker ]] || wrong_usage "--from $from is neither distribution nor docker"
    need_root
    take_turn
    if docker compose version >/dev/null 2>&1 && command -v dockerd >/dev/null; then
        say "found $(docker --version), compose $(docker compose version --short)"
    else
        "from_$from"
    fi
    start_docker
    [[ ! $user ]] || add_to_group "$user"
}

# The compose plugin has a different name in each distribution. Debian 12 only has its predecessor.
from_distribution() {
    local compose cli=()
    await_first_boot
    refresh_lists
    case $(. /etc/os-release && echo "${ID:-}") in
        debian) compose=docker-compose ;;
        ubuntu) compose=docker-compose-v2 ;;
        *) fail 2 "this is neither Debian nor Ubuntu" "install Docker Engine by hand: docs.docker.com/engine/install" ;;
    esac
    [[ $(apt-cache policy "$compose" | awk '$1 == "Candidate:" { print $2 }') =~ ^([0-9]:)?[2-9] ]] ||
        fail 2 "this distribution has no compose plugin in its packages" "--from docker, or a newer release of it"
    # In Debian 13, the command is in a separate package, on which compose doesn't depend.
    [[ ! $(apt-cache --names-only search '^docker-cli$') ]] || cli=(docker-cli)
    need_packages docker.io "${cli[@]}" "$compose" docker-buildx
}

from_docker() {
    local distribution codename
    need_packages ca-certificates curl
    distribution=$(. /etc/os-release && echo "$ID") codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    install --directory --mode=0755 /etc/apt/keyrings
    curl --fail --silent --show-error --location --retry 3 --output /etc/apt/keyrings/docker.asc \
        "https://download.docker.com/linux/$distribution/gpg" ||
        fail 5 "download.docker.com gives no key for $distribution" "check the network, or --from distribution"
    printf 'deb [arch=%s signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/%s %s stable\n' \
        "$(dpkg --print-architecture)" "$distribution" "$codename" >/etc/apt/sources.list.d/docker.list
    rm -f /run/larder-lists # they are outdated now
    need_packages docker-ce docker-ce-cli containerd.io docker-buildx-plugin docker-compose-plugin
}

start_docker() {
    local state
    if docker version >/dev/null 2>&1; then
        say "found the engine running"
        return
    fi
    state=$(systemctl enable --now docker 2>&1) || fail 5 "Docker doesn't start: $state" \
        "systemctl status docker shows why; it waits for the block volume's mount, where there is one"
    docker version >/dev/null || fail 5 "the engine doesn't answer" "journalctl -u docker shows why"
    say "started the engine"
}

add_to_group() {
    id "$1" >/dev/null 2>&1 || fail 2 "there is no user $1" "give --user the name of a user of this server"
    if [[ " $(id -nG "$1") " == *" docker "* ]]; then
        say "found $1 in the group docker"
    else
        usermod --append --groups docker "$1"
        say "added $1 to the group docker, from the next login on"
    fi
}

main "$@"
