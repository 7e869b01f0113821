"""Mount without root's rights, by fusermount3, as on a laptop.

The stage runs as root, but is told that it doesn't; all else is as for an ordinary user.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Store
from tests.integration.mount.conftest import Mount, Until, alive, held_open

ROOT = Path(__file__).resolve().parents[3]
AS_USER = (
    "import os, runpy, sys; sys.argv.pop(); os.geteuid = lambda: 4711;"
    "runpy.run_module('services.mount', run_name='__main__')"
)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def store(s3: Store) -> Any:
    """One kind of store is enough here."""
    return s3


@pytest.fixture
def start(mount: Mount) -> Iterator[Start]:
    """Starts the stage as a user."""

    def start(**env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", AS_USER, "services.mount"],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | mount.env | env,
        )
        mount.started.append(process)
        return process

    yield start


def test_a_user_mounts_by_fuse_s_own_program(mount: Mount, start: Start) -> None:
    mount.put(photo=b"pixels")
    process = start()
    assert process.stdout and process.stdout.readline() == f"{mount.point}\n"
    assert (mount.point / "photo").read_bytes() == b"pixels"
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert not mount.mounted() and mount.litter() == []


def test_a_user_clears_a_dead_mount(mount: Mount, start: Start, until: Until) -> None:
    mount.put(photo=b"pixels")
    process = start()
    assert process.stdout and process.stdout.readline() == f"{mount.point}\n"
    rclone = mount.rclone()
    with held_open(mount.point / "photo"):
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not alive(rclone), "rclone ends with its parent")
        assert mount.mounted()
        again = start()
        assert again.stdout and again.stdout.readline() == f"{mount.point}\n"
    assert (mount.point / "photo").read_bytes() == b"pixels"


def test_a_missing_helper_is_named(mount: Mount, start: Start, tmp_path: Path) -> None:
    process = start(PATH=str(tmp_path))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "fuse3" in stderr
