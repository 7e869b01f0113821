"""The volume script, killed at random moments: the next run converges or says what to do, and no data are lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.openstack.disks import GIB, MIB, Ended, Machine

MOUNT = "/mnt/block"
KILLS = 10
"""Of each command, in each of two ways."""


def with_children(process: subprocess.Popen[str]) -> None:
    """What a power cut or an exhausted memory may do."""
    os.killpg(process.pid, signal.SIGKILL)


def alone(process: subprocess.Popen[str]) -> None:
    """What a program that it has started survives."""
    process.kill()


def start(machine: Machine, command: str, device: str, *options: str) -> subprocess.Popen[str]:
    argv = machine.command("/provision/host/volume.py", command, "--device", device, *options)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


class Killer:
    """Kills runs at moments that are spread over the time of a whole one."""

    def __init__(self, kill: Callable[[subprocess.Popen[str]], None]) -> None:
        self._kill = kill
        self._moments = random.Random(0)
        self._longest = 1.0
        self.killed = 0

    def measure(self, run: Callable[[], Ended]) -> None:
        """Run to the end, and remember how long that took."""
        begin = time.monotonic()
        ended = run()
        self._longest = time.monotonic() - begin
        assert ended.code == 0, ended

    def run(self, machine: Machine, command: str, device: str, *options: str) -> None:
        """Run, and kill at some moment."""
        process = start(machine, command, device, *options)
        try:
            process.wait(self._moments.uniform(0, self._longest))
        except subprocess.TimeoutExpired:
            self._kill(process)
            self.killed += 1
        process.communicate()


@pytest.fixture(params=[with_children, alone], ids=lambda kill: kill.__name__)
def killer(request: pytest.FixtureRequest) -> Killer:
    return Killer(request.param)


def wipe(machine: Machine, device: str) -> None:
    """What the script tells to do with a disk on which formatting was cut short."""
    machine.run("wipefs", "--all", "--quiet", device)
    machine.run("blkdiscard", device)
    subprocess.run(["partx", "--delete", device], check=False, capture_output=True)


def repair(machine: Machine, device: str) -> None:
    """What the script tells to do with a file system whose growing was cut short."""
    argv = machine.command("e2fsck", "-f", "-y", f"{device}p1")
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 1  # all errors were corrected


def uuid_of(machine: Machine, device: str) -> str:
    return machine.run("blkid", "--probe", "--match-tag", "UUID", "--output", "value", f"{device}p1")


def test_killed_prepare_converges_or_says_what_to_do(machine: Machine, killer: Killer) -> None:
    device = machine.disk(256 * MIB)
    killer.measure(lambda: machine.volume("prepare", device, "--blank"))
    while killer.killed < KILLS:
        wipe(machine, device)
        killer.run(machine, "prepare", device, "--blank")
        ended = machine.volume("prepare", device, "--blank")
        if ended.code == 3:
            assert f"{device}p1: data without a signature" in ended.stderr, ended
            assert "if nothing on it counts, as when formatting was cut short" in ended.stderr
            assert "wipe it by hand (wipefs, blkdiscard)" in ended.stderr
            wipe(machine, device)
            ended = machine.volume("prepare", device, "--blank")
        assert ended.code == 0, ended
        machine.run("e2fsck", "-f", "-n", f"{device}p1")
        listed = machine.run("debugfs", "-R", "ls -p /", f"{device}p1")
        assert "/workspace/" in listed and "/docker-volumes/" in listed
        before = uuid_of(machine, device)
        killer.run(machine, "prepare", device, "--blank")
        assert machine.volume("prepare", device, "--blank").code == 0 and uuid_of(machine, device) == before


def test_killed_mount_and_unmount_leave_the_data_and_end_as_told(machine: Machine, killer: Killer) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    units = machine.root / "etc/systemd/system/docker.service.d"
    assert machine.volume("mount", device, "--blank").code == 0
    machine.run("sh", "-c", f"echo kept >{MOUNT}/workspace/note")
    before = uuid_of(machine, device)
    killer.measure(lambda: machine.volume("unmount", device))
    while killer.killed < KILLS:
        for command, is_mounted in (("mount", True), ("unmount", False), ("mount", True)):
            killer.run(machine, command, device)
            ended = machine.volume(command, device)
            assert ended.code == 0, ended
            assert (f" {MOUNT} ext4 defaults,nofail" in fstab.read_text()) == is_mounted
            assert bool(list(units.iterdir())) == is_mounted
        assert machine.run("cat", f"{MOUNT}/workspace/note") == "kept\n" and uuid_of(machine, device) == before
    assert machine.volume("unmount", device).code == 0
    assert fstab.read_text() == "# nothing yet\n"


def test_killed_grow_keeps_the_data_and_is_completed(machine: Machine, killer: Killer) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    machine.run("sh", "-c", f"head -c 50000000 /dev/urandom >{MOUNT}/workspace/data")
    before = machine.run("sha256sum", f"{MOUNT}/workspace/data")
    machine.volume("unmount", device)
    size = GIB + 128 * MIB
    machine.grow_disk(device, size)
    killer.measure(lambda: machine.volume("grow", device))
    while killer.killed < KILLS:
        size += 128 * MIB
        machine.grow_disk(device, size)
        killer.run(machine, "grow", device)
        ended = machine.volume("grow", device)
        if ended.code == 3:  # resize2fs was killed at work
            assert "found errors that it can't correct automatically" in ended.stderr, ended
            assert f"run `e2fsck -f -y {device}p1` by hand, then this again" in ended.stderr
            repair(machine, device)
            ended = machine.volume("grow", device)
        assert ended.code == 0, ended
        machine.run("e2fsck", "-f", "-n", f"{device}p1")
    machine.volume("mount", device)
    assert machine.run("sha256sum", f"{MOUNT}/workspace/data") == before
    assert int(machine.run("df", "--output=size", "--block-size=1", MOUNT).split()[1]) > 0.95 * size
    machine.volume("unmount", device)


SLOW = """#!/bin/sh
touch /mnt/began
until [ -e /mnt/go ]; do sleep 0.1; done
exec /usr/sbin/mkfs.ext4 "$@"
"""


def test_next_run_waits_for_the_mkfs_of_a_killed_one(machine: Machine) -> None:
    """Else two of them would write to the disk at the same time."""
    device, mkfs = machine.disk(), machine.root / "usr/local/bin/mkfs.ext4"
    mkfs.write_text(SLOW)
    mkfs.chmod(0o755)
    try:
        first = start(machine, "prepare", device, "--blank")
        wait_until((machine.root / "mnt/began").exists, "mkfs has begun")
        first.kill()
        first.wait()
        second = start(machine, "prepare", device, "--blank")
        wait_until(lambda: has_open(second.pid, "/run/larder-volume.lock"), "the second run has come to the lock")
        (machine.root / "mnt/go").touch()
        said, _ = second.communicate()
        first.communicate()
    finally:
        mkfs.unlink()
    assert second.returncode == 0, said
    assert said == f"found ext4 on {device}p1, and left it as it is\n"
    machine.run("e2fsck", "-f", "-n", f"{device}p1")


def has_open(process: int, name: str) -> bool:
    files = Path(f"/proc/{process}/fd")
    return any(os.readlink(file).endswith(name) for file in files.iterdir()) if files.exists() else False
