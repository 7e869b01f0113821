#!/opt/venv/bin/python
"""Try what an attacker who controls rclone would try. Replaces the real rclone in the mount's container.

It prints one line as rclone's log would: for each thing that it tries "done", or what the system says.
"""

import ctypes
import json
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
PTRACE_ATTACH = 16


def call(name: str, *words: object) -> None:
    """Call a function of the C library, which returns -1 for a failure."""
    if getattr(LIBC, name)(*words) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def processes(word: str) -> list[int]:
    pids = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [int(path.name) for path in pids if word.encode() in (path / "cmdline").read_bytes().split(b"\0")]


def ask(words: bytes) -> None:
    """Send a request to the mounter."""
    with socket.socket(fileno=os.dup(int(os.environ["LARDER_MOUNTER"]))) as mounter:
        mounter.setblocking(True)
        mounter.send(words)
        reply, handles, _, _ = socket.recv_fds(mounter, 1000, 4)
    for handle in handles:
        os.close(handle)
    if reply != b"done":
        raise OSError(1, reply.decode())


def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("1")


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def swap_the_point() -> None:
    """Replace the mount point by a link, and request the mount."""
    point = Path(sys.argv[3])
    point.rmdir()
    point.symlink_to("/opt")
    try:
        ask(b"mount")
    finally:
        point.unlink()
        point.mkdir()


def mounted_elsewhere() -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if {"/opt", "/opt/larder"} & {*points}:
        return
    raise OSError(1, "nothing is mounted there")


(MOUNTER,) = processes("services.mount.mounter")
TRIES: dict[str, Callable[[], object]] = {
    "mount a file system": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "mount a folder elsewhere": lambda: call("mount", b"/mount", b"/tmp", None, 4096, None),
    "unmount": lambda: call("umount2", b"/mount", 2),
    "make a user namespace": lambda: call("unshare", NEW_USER),
    "make a mount namespace": lambda: call("unshare", NEW_MOUNTS),
    "enter a namespace": lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
    "make a disk's device": lambda: os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
    "make a disk's device in the folder": lambda: os.mknod("/mount/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0)),
    "make a device of memory": lambda: os.mknod("/mount/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1)),
    "read the kernel's memory": lambda: read("/proc/kcore"),
    "read the kernel's log": lambda: call("klogctl", 3, ctypes.create_string_buffer(9), 9),
    "change the kernel's settings": lambda: write("/proc/sys/kernel/core_pattern"),
    "press the system's keys": lambda: write("/proc/sysrq-trigger"),
    "write to the image": lambda: write("/opt/larder/services/mount/kernel.py"),
    "write to the system": lambda: write("/etc/passwd"),
    "become root": lambda: os.setuid(0),
    "become root's group": lambda: os.setgid(0),
    "change the root folder": lambda: os.chroot("/mount"),
    "read the mounter's memory": lambda: read(f"/proc/{MOUNTER}/mem"),
    "read the mounter's environment": lambda: read(f"/proc/{MOUNTER}/environ"),
    "use the mounter's handles": lambda: os.readlink(f"/proc/{MOUNTER}/fd/0"),
    "trace the mounter": lambda: call("ptrace", PTRACE_ATTACH, MOUNTER, None, None),
    "trace the stage": lambda: call("ptrace", PTRACE_ATTACH, os.getppid(), None, None),
    "read the stage's memory": lambda: read(f"/proc/{os.getppid()}/mem"),
    "set the clock": lambda: call("settimeofday", (ctypes.c_long * 2)(1, 1), None),
    "restart the machine": lambda: call("reboot", 0x01234567),
    "load a module": lambda: call("init_module", b"x", 1, b""),
    "open a file by its number": lambda: call("open_by_handle_at", -1, ctypes.create_string_buffer(64), 0),
    "watch the network": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "have another folder unmounted": lambda: ask(b"unmount\0../etc"),
    "have the folder unmounted": lambda: ask(b"detach\0."),
    "have something else done": lambda: ask(b"exec\0sh"),
    "have a link mounted": swap_the_point,
    "mount over the image": mounted_elsewhere,
    "end the mounter": lambda: os.kill(MOUNTER, 9),
}
"""All of these must fail."""


def result(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except (OSError, AttributeError) as fault:
        return str(fault)
    return "done"


status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
report: dict[str, object] = {
    name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Groups")
}
report["tries"] = {name: result(attempt) for name, attempt in TRIES.items()}
report["devices"] = sorted(str(path) for path in Path("/dev").rglob("*") if stat.S_ISBLK(path.lstat().st_mode))
print(json.dumps({"level": "error", "msg": "PROBE" + json.dumps(report)}), file=sys.stderr, flush=True)
sys.exit(1)
