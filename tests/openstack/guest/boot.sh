#!/bin/sh
# boot.sh LISTEN KEY: boot the guest, its SSH at LISTEN (address:port), for user cc with the public key KEY.
# QMP listens in /run/guest/qmp, the console is written to /run/guest/console. Nothing is written to the image.
set -eu
files="d /home/cc/.ssh 0700 cc cc -
f+ /home/cc/.ssh/authorized_keys 0600 cc cc - $2"
credential=$(printf '%s\n' "$files" | base64 -w0)
# ACCEL=kvm is faster where it works; emulation works everywhere, and need not guard against faults of real processors.
exec qemu-system-x86_64 -accel "${ACCEL:-tcg,thread=multi,tb-size=512}" -cpu max -m "${MEMORY:-1536}" -smp 2 -nodefaults -display none \
    -kernel /guest/vmlinuz -initrd /guest/initrd \
    -append "root=/dev/vda rw console=ttyS0 quiet mitigations=off systemd.set_credential_binary=tmpfiles.extra:$credential" \
    -serial file:/run/guest/console -qmp unix:/run/guest/qmp,server,nowait \
    -drive file=/guest/disk.qcow2,if=none,id=root,format=qcow2,snapshot=on -device virtio-blk-pci,drive=root \
    -netdev "user,id=net,hostfwd=tcp:$1-:22" -device virtio-net-pci,netdev=net -device virtio-rng-pci
