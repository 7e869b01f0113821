#!/bin/sh
# container.sh KEY: become systemd, in a container with CAP_SYS_ADMIN; user cc logs in with the public key KEY.
set -eu
# Docker mounts the cgroups read-only, and systemd writes to them.
for place in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    if mountpoint -q "$place"; then mount -o remount,bind,rw "$place"; fi
done
install -d -m 0700 -o cc -g cc /home/cc/.ssh
echo "$1" >/home/cc/.ssh/authorized_keys
ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
# The word is for machines that still have cgroup v1.
exec /lib/systemd/systemd SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
