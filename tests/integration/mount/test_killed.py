"""What killed processes leave behind, and how it is cleared."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from tests.conftest import Store
from tests.integration.mount.conftest import Mount, Until, alive, held_open, mounted


@pytest.fixture
def store(s3: Store) -> Any:
    """One kind of store is enough here."""
    return s3


def test_rclone_killed(mount: Mount) -> None:
    mount.put(photo=b"pixels")
    process = mount.start()
    with held_open(mount.point / "photo") as file:
        os.kill(mount.rclone(), signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 5
        assert "killed by signal 9" in stderr
        assert "next step" in stderr
        assert not mount.mounted()
        assert mount.litter() == []
        with pytest.raises(OSError, match=r"not connected|aborted"):
            os.read(file, 1000)


def test_the_server_killed_takes_rclone_and_the_mount_along(mount: Mount, until: Until) -> None:
    process = mount.start()
    rclone = mount.rclone()
    process.kill()
    until(lambda: not alive(rclone), "rclone ends with its parent")
    until(lambda: not mount.mounted(), "its mount goes with it")
    mount.start()
    assert os.listdir(mount.point) == []


@pytest.mark.parametrize("remedy", ["mount", "--detach", "--unmount"])
def test_a_dead_mount_is_cleared(mount: Mount, until: Until, remedy: str) -> None:
    mount.put(photo=b"pixels")
    process = mount.start()
    rclone = mount.rclone()
    with held_open(mount.point / "photo"):  # so that rclone can't unmount
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not alive(rclone), "rclone ends with its parent")
        assert mount.mounted()
        with pytest.raises(OSError) as fault:
            os.listdir(mount.point)
        assert fault.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        if remedy == "mount":
            mount.start()
        elif remedy == "--detach":
            mount.detach()
        else:
            ended = mount.run("--unmount")
            assert ended.code == 0, ended.stderr
    if remedy == "--unmount":
        assert not mount.mounted()
        assert mount.litter() == []
    else:
        assert (mount.point / "photo").read_bytes() == b"pixels"


def test_killed_again_and_again(mount: Mount, until: Until) -> None:
    mount.put(photo=b"pixels")
    for _ in range(5):
        process = mount.start()  # at once after the kill, while the old rclone may be ending
        assert (mount.point / "photo").read_bytes() == b"pixels"
        process.kill()
    mount.start()
    assert (mount.point / "photo").read_bytes() == b"pixels"
    assert mounted(mount.folder) == [str(mount.point)]


def test_an_rclone_that_hangs_is_ended(mount: Mount) -> None:
    server = mount.detach()
    rclone = mount.rclone()
    os.kill(rclone, signal.SIGSTOP)
    ended = mount.run("--unmount")
    assert ended.code == 0, ended.stderr
    assert not alive(rclone)
    assert not alive(server)
    assert not mount.mounted()
