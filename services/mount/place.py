"""The folder in which the bucket appears, and what lies beside the mount point there.

    <LARDER_MOUNT_DIR>/<bucket>/        the mount point
    <LARDER_MOUNT_DIR>/.rclone.sock     rclone's metrics, for everybody on this machine
    <LARDER_MOUNT_DIR>/.mount.json      who serves the mount
    <LARDER_MOUNT_DIR>/.mount.log       what the one in the background says
    <LARDER_MOUNT_DIR>/.cache/          what LARDER_VFS_CACHE=full keeps

The mount point is a subfolder because in a container the folder itself is the bind mount that hands the mount on.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from larder.background import runs
from larder.errors import StorageError

WORDS = {"services.mount"}
"""By what a process of this stage is known."""


class Server(NamedTuple):
    """Who serves which mount: a process id, which counts in the namespace `pids` alone, and how it was told to."""

    pid: int
    pids: str
    bucket: str
    shape: dict[str, str | int]
    """The settings that make a difference to readers."""


class Place:
    """The folder `mount_dir`, which takes one mount at a time."""

    def __init__(self, mount_dir: Path) -> None:
        self.folder = mount_dir.resolve()
        self.socket = self.folder / ".rclone.sock"
        self.log = self.folder / ".mount.log"
        self.cache = self.folder / ".cache"
        self._server = self.folder / ".mount.json"

    def point(self, bucket: str) -> Path:
        """Where the bucket appears."""
        return self.folder / bucket

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Whether the folder is this process's alone; if not, another one serves a mount in it.

        It is the kernel's lock, on the folder itself: containers with this folder see it, and it goes with its
        process, however that ends.
        """
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        try:
            yield mine
        finally:
            os.close(handle)

    def make(self) -> None:
        """Make the folder. Raises StorageError when something else is there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StorageError(f"{self.folder} is not a folder", next_step="set LARDER_MOUNT_DIR to a folder") from None

    def enter(self, bucket: str, shape: dict[str, str | int]) -> None:
        """Write down that this process serves the bucket."""
        self._server.write_text(json.dumps(Server(os.getpid(), _pids(), bucket, shape)._asdict()) + "\n")

    def leave(self, bucket: str) -> None:
        """Remove what a mount needs besides its cache; a mount point that isn't empty stays."""
        self._server.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        with suppress(OSError):
            self.point(bucket).rmdir()

    def server(self) -> Server | None:
        """Who serves a mount here, or did when it was killed."""
        try:
            return Server(**json.loads(self._server.read_text()))
        except (OSError, ValueError, TypeError):  # absent, or being written
            return None

    def process(self) -> int | None:
        """The process that serves a mount here, if this process can reach it: not from another container."""
        server = self.server()
        if server is None or server.pids != _pids() or server.pid == os.getpid():
            return None
        return server.pid if runs(server.pid, WORDS) else None


def _pids() -> str:
    return os.readlink("/proc/self/ns/pid")
