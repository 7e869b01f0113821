#!/bin/bash
# One Ceph with RGW on port 8000, which is ready when its log says so.
#   boot.sh install   at docker build: make the monitor's store, the OSD and RGW's pools
#   boot.sh           start what was installed; KEYSTONE is the address of Keystone
set -e
STORE=/srv/ceph
RGW=(radosgw -f --name client.rgw)

say() { echo "[${SECONDS}s] $*"; }
until_true() {
    for _ in $(seq 400); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    say "gave up waiting for: $*"; exit 1
}
start_mon() { ceph-mon -f --id a --public-addr 127.0.0.1 & MON=$!; }
start_osd() { ceph-osd -f --id 0 & OSD=$!; }

install() {
    mkdir -p $STORE/{mon,osd}
    ceph-mon --mkfs --id a --public-addr 127.0.0.1
    start_mon
    until_true ceph mon stat
    local uuid
    uuid=$(cat /proc/sys/kernel/random/uuid)
    ceph osd new "$uuid"
    ceph-osd --mkfs --id 0 --osd-uuid "$uuid"
    start_osd
    "${RGW[@]}" & local rgw=$!
    until_true curl -so /dev/null http://127.0.0.1:8000
    say "RGW and its pools"
    kill $rgw; wait $rgw || true
    kill $OSD; wait $OSD || true
    kill $MON; wait $MON || true
}

run() {
    start_mon
    start_osd
    "${RGW[@]}" --rgw-keystone-url "$KEYSTONE" &
    until_true curl -so /dev/null http://127.0.0.1:8000
    say "ready"
    wait
}

mkdir -p /var/run/ceph
if [ "$1" = install ]; then install; else run; fi
