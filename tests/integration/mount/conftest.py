"""Real FUSE mounts of real stores, in a folder for each test."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Store, own_bucket
from tests.integration.conftest import Stage

OTHER_USER = 1000
Until = Callable[..., None]


@pytest.fixture(scope="session", autouse=True)
def fuse() -> None:
    """Require what a mount needs."""
    missing = [name for name in ("fusermount3", "setpriv") if shutil.which(name) is None]
    if not Path("/dev/fuse").exists():
        missing.append("/dev/fuse")
    elif os.geteuid() != 0:
        missing.append("root, to read as another user")
    if missing:
        why = f"no mount can be tested here without {', '.join(missing)}; tests/containers mounts, too"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)


def mounted(folder: Path) -> list[str]:
    """The mount points in `folder`."""
    points = [line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


@pytest.fixture
def bucket(store: Store) -> Iterator[str]:
    """The name of an empty bucket without folders of earlier tests."""
    with own_bucket(store.client, new=True) as name:
        yield name


class Mount:
    """A folder, and the stage that mounts `bucket` in it."""

    def __init__(self, stage: Any, store: Any, bucket: str, folder: Path) -> None:
        self.stage, self.store, self.bucket, self.folder = stage, store, bucket, folder
        self.point = folder / bucket
        self.env = {**store.env, "S3_BUCKET": bucket, "LARDER_MOUNT_DIR": str(folder), "LARDER_LOG": "line"}
        self.started: list[subprocess.Popen[str]] = []

    def put(self, **contents: bytes) -> None:
        """Put objects; __ in a name is a slash."""
        for name, content in contents.items():
            self.store.client.put_object(Bucket=self.bucket, Key=name.replace("__", "/"), Body=content)

    def run(self, *flags: str, **env: str) -> Any:
        """Run the stage to its end, and check that its output has no secret."""
        result = self.stage("mount", *flags, env=self.env | env)
        assert self.store.secret_key not in result.stdout + result.stderr
        return result

    def start(self, **env: str) -> subprocess.Popen[str]:
        """Start it in the foreground, and wait until it reports the mount."""
        process: subprocess.Popen[str] = self.stage.start("mount", env=self.env | env)
        self.started.append(process)
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert line == f"{self.point}\n", process.stderr.read()
        return process

    def detach(self, **env: str) -> int:
        """Start it in the background, and return the process that serves the mount."""
        result = self.run("--detach", **env)
        assert (result.code, result.stdout) == (0, f"{self.point}\n"), result.stderr
        return self.server()

    def server(self) -> int:
        """The process that serves the folder in the background."""
        pids = [pid for pid in processes(b"services.mount") if f"LARDER_MOUNT_DIR={self.folder}" in _environ(pid)]
        assert len(pids) == 1
        return pids[0]

    def rclone(self) -> int:
        """The process id of the rclone that serves it."""
        pids = [pid for pid in processes(b"mount") if self.bucket in arguments(pid) and "/rclone\0" in arguments(pid)]
        assert len(pids) == 1
        return pids[0]

    def mounted(self) -> bool:
        """Return whether something is mounted there, even a dead mount."""
        return str(self.point) in mounted(self.folder)

    def as_other(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an ordinary user."""
        user = ("setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups")
        return subprocess.run([*user, *command], capture_output=True, text=True, check=False, timeout=60)

    def litter(self) -> list[str]:
        """List the folder, without the log."""
        return sorted(set(os.listdir(self.folder)) - {".mount.log"})


def arguments(pid: int) -> str:
    """Return a process's command line, or "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _environ(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def processes(word: bytes) -> list[int]:
    """Return the processes with `word` among their arguments."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if word.decode() in arguments(pid).split("\0")]


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie doesn't."""
    return arguments(pid) != ""


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Open a file. Closing it may fail after the mount is gone."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        with suppress(OSError):
            os.close(handle)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can access, with a space in its name."""
    top = Path(tempfile.mkdtemp(prefix="larder-mount-"))
    top.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    folder = top / "a mount"
    yield folder
    for point in reversed(mounted(top)):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)  # its rclone may be quicker
    assert mounted(top) == []
    shutil.rmtree(top, ignore_errors=True)  # rclone removes its socket at the same time


@pytest.fixture
def mount(stage: Stage, store: Store, bucket: str, folder: Path) -> Iterator[Mount]:
    """A bucket with some objects, and the stage that mounts it. Its processes are ended after the test."""
    it = Mount(stage, store, bucket, folder)
    yield it
    for process in it.started:
        process.kill()
        process.communicate()
    for pid in processes(b"services.mount"):
        if f"LARDER_MOUNT_DIR={folder}" in _environ(pid):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, 9)
