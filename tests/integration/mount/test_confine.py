"""Which requests the mounting process serves, and which it refuses."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.mount.confine import Mounter
from services.mount.mounter import DONE
from tests.integration.mount.conftest import mounted

Ask = Callable[[bytes], tuple[bytes, list[int]]]


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder with a mount point, `point`, and another folder beside it."""
    (folder / "point").mkdir(parents=True)
    (folder / "beside").mkdir()
    return folder


@pytest.fixture
def mounter(place: Path) -> Iterator[Mounter]:
    it = Mounter(place / "point", "larder:a bucket")
    yield it
    it.end()


@pytest.fixture
def ask(mounter: Mounter) -> Iterator[Ask]:
    """Sends requests like rclone."""
    given: list[int] = []

    def ask(words: bytes) -> tuple[bytes, list[int]]:
        channel = mounter.rclone_channel()
        channel.send(words)
        reply, handles, _, _ = socket.recv_fds(channel, 1000, 4)
        given.extend(handles)
        return reply, handles

    yield ask
    for handle in given:
        os.close(handle)


def test_it_mounts_and_unmounts_at_its_point(place: Path, ask: Ask) -> None:
    reply, handles = ask(b"mount")
    assert reply == DONE and len(handles) == 1
    assert os.readlink(f"/proc/self/fd/{handles[0]}") == "/dev/fuse"
    assert mounted(place) == [str(place / "point")]
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    line = next(line for line in table if line.split()[4].endswith("a\\040mount/point"))
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    assert "fuse.rclone larder:a\\040bucket" in line
    assert ask(b"mount") == (b"something is mounted there already", [])
    assert ask(b"unmount") == (DONE, [])
    assert mounted(place) == []


@pytest.mark.parametrize(
    "words",
    [b"exec", b"\0", b"mount\0", b"unmount", b"detach", b"unmount\0..", b"unmount\0.", b"unmount\0/", b"detach\0/proc",
     b"detach\0../etc", b"unmount\0point/..", b"unmount\0beside", b"detach\0tmpfs", b"unmount\0\xff\0x", b"x" * 5000],
    ids=repr,
)  # fmt: skip
def test_it_does_nothing_else(place: Path, ask: Ask, words: bytes) -> None:
    (place / "tmpfs").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "larder-tests", place / "tmpfs"], check=True)
    try:
        reply, handles = ask(words)
        assert reply != DONE and handles == []
        assert str(place / "tmpfs") in mounted(place)
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", place / "tmpfs"], check=True)


def test_it_mounts_no_link_s_target(place: Path, ask: Ask) -> None:
    (place / "point").rmdir()
    (place / "point").symlink_to(place / "beside")
    reply, handles = ask(b"mount")
    assert reply != DONE and handles == []
    assert mounted(place) == []


def test_it_ends_with_those_who_may_ask(place: Path) -> None:
    it = Mounter(place / "point", "larder:bucket")
    process = it._process
    it.rclone_channel().close()
    assert process.poll() is None
    it.end()
    assert process.wait(20) == 0


def test_it_keeps_the_rights_to_mount_and_no_others(mounter: Mounter) -> None:
    status = Path(f"/proc/{mounter._process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0000000000200002"}
    assert fields["CapInh"] == fields["CapAmb"] == "0" * 16
    assert fields["NoNewPrivs"] == "1"
