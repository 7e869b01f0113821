#!/usr/bin/env bash
# rclone and FUSE, with mounts that other users and containers may read.
set -euo pipefail
ARGUMENTS="$*"
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'X'
rclone.sh
Installs rclone and fuse3, and allows `user_allow_other` in /etc/fuse.conf: containers read a mount
as another user than the one who mounted it.
X
}

main() {
    [[ " $* " == *" --help "* ]] && { usage; exit; }
    (($# == 0)) || wrong_usage "unknown option $1"
    need_root
    take_turn
    need_packages rclone fuse3
    if grep -qx user_allow_other /etc/fuse.conf; then
        say "found user_allow_other in /etc/fuse.conf"
    else
        echo user_allow_other >>/etc/fuse.conf
        say "allowed user_allow_other in /etc/fuse.conf"
    fi
}

main "$@"
