#!/bin/sh
# boot.sh LISTEN KEY: thaw the guest, its SSH at LISTEN (address:port), for user cc with the public key KEY.
# boot.sh freeze: boot it, and write its memory to /guest/state as soon as it waits for a key (first-boot).
# QMP listens in /run/guest/qmp, the console is written to /run/guest/console. Nothing is written to the image.
set -eu

# machine LISTEN DISK_OPTION OPTION...: both must be the same machine. tb-size is for the translated code. One processor
# costs a third less than two, which emulation has to keep consistent; the TSC is its cheapest clock. qemu64 has few
# registers to save, which makes programs a quarter faster than `max` does.
machine() {
    listen=$1 disk=$2
    shift 2
    # ACCEL=kvm is faster where it works; emulation works everywhere, and need not guard against faults of real processors.
    exec qemu-system-x86_64 -accel "${ACCEL:-tcg,thread=multi,tb-size=256}" -cpu qemu64 -m 1024 -smp 1 -nodefaults -display none \
        -kernel /guest/vmlinuz -initrd /guest/initrd \
        -append "root=/dev/vda rw console=ttyS0 quiet mitigations=off tsc=reliable clocksource=tsc init_on_alloc=0 randomize_kstack_offset=off" \
        -drive "file=/guest/disk.qcow2,if=none,id=root,format=qcow2,$disk" -device virtio-blk-pci,drive=root \
        -netdev "user,id=net,hostfwd=tcp:$listen-:22" -device virtio-net-pci,netdev=net -device virtio-rng-pci "$@"
}

freeze() {
    mkdir -p /run/guest
    touch /run/guest/console /run/guest/told
    {
        waited=0
        until grep -q '^waiting for a key' /run/guest/console || [ $((waited += 1)) -gt 1200 ]; do sleep 1; done
        printf 'stop\nmigrate "exec:cat >/guest/state"\nquit\n'
    } | (machine 127.0.0.1:2222 cache=unsafe -serial file:/run/guest/console \
        -chardev file,id=told,path=/dev/null,input-path=/run/guest/told -serial chardev:told -monitor stdio) >/run/guest/monitor
    grep -q '^waiting for a key' /run/guest/console && test -s /guest/state || { tail /run/guest/console; exit 1; }
    rm -r /run/guest
}

thaw() {
    told=$(mktemp)
    {
        printf '\n\n\n\n\n\n\n\n'
        echo "$(date +%s.%N) $(head -c 32 /dev/urandom | base64 -w0) $2"
    } >"$told"
    set -- "$1" snapshot=on
    [ "${ACCEL:-}" ] || set -- "$@" -incoming "exec:cat /guest/state" # with another accelerator it boots
    machine "$@" -serial file:/run/guest/console -chardev "file,id=told,path=/dev/null,input-path=$told" -serial chardev:told \
        -qmp unix:/run/guest/qmp,server,nowait
}

if [ "$1" = freeze ]; then freeze; else thaw "$@"; fi
