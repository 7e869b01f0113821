"""The mount folder: the mount point and the files beside it.

    <LARDER_MOUNT_DIR>/<bucket>/        the mount point
    <LARDER_MOUNT_DIR>/.rclone.sock     rclone's metrics, for every user of this machine
    <LARDER_MOUNT_DIR>/.mount.json      the process that serves the mount
    <LARDER_MOUNT_DIR>/.mount.log       the log of a background process
    <LARDER_MOUNT_DIR>/.cache/          the cache of LARDER_VFS_CACHE=full

The mount point is a subfolder because in a container the folder itself is the bind mount that propagates the mount.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from larder.background import is_running
from larder.errors import StorageError

PROCESS_ARGUMENTS = {"services.mount"}
"""Arguments that identify a process of this stage."""


class MountServer(NamedTuple):
    """The process that serves a mount. Its id is valid only in the PID namespace `pids`."""

    pid: int
    pids: str
    bucket: str
    shape: dict[str, str | int]
    """The settings that readers notice."""


class MountFolder:
    """The mount folder, which holds one mount at a time."""

    def __init__(self, mount_dir: Path) -> None:
        self.folder = mount_dir.resolve()
        self.socket = self.folder / ".rclone.sock"
        self.log = self.folder / ".mount.log"
        self.cache = self.folder / ".cache"
        self._server = self.folder / ".mount.json"

    def mount_point(self, bucket: str) -> Path:
        """Return the bucket's mount point."""
        return self.folder / bucket

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Try to lock the folder, and yield whether it succeeded; if not, another process serves a mount in it.

        The kernel locks the folder itself. So containers with the same folder see the lock, and it is released however
        the process ends.
        """
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            locked = False
        try:
            yield locked
        finally:
            os.close(handle)

    def create(self) -> None:
        """Create the folder. Raises StorageError if its path is something else."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise StorageError(f"{self.folder} is not a folder", next_step="set LARDER_MOUNT_DIR to a folder") from None

    def record_server(self, bucket: str, shape: dict[str, str | int]) -> None:
        """Record that this process serves the bucket."""
        self._server.write_text(json.dumps(MountServer(os.getpid(), _pid_namespace(), bucket, shape)._asdict()) + "\n")

    def remove_files(self, bucket: str) -> None:
        """Remove the files of a mount except its cache, and its mount point if it is empty."""
        self._server.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        with suppress(OSError):
            self.mount_point(bucket).rmdir()

    def read_server(self) -> MountServer | None:
        """Return the recorded server, which may have been killed, or None."""
        try:
            return MountServer(**json.loads(self._server.read_text()))
        except (OSError, ValueError, TypeError):  # absent, or being written
            return None

    def find_process(self) -> int | None:
        """Return the id of the process that serves the mount, or None if it is in another container or has ended."""
        server = self.read_server()
        if server is None or server.pids != _pid_namespace() or server.pid == os.getpid():
            return None
        return server.pid if is_running(server.pid, PROCESS_ARGUMENTS) else None

    def has_server_ended(self) -> bool:
        """Return whether the recorded server is known to have ended: it ran in this PID namespace, and doesn't now."""
        server = self.read_server()
        if server is None or server.pids != _pid_namespace():
            return False
        return not is_running(server.pid, PROCESS_ARGUMENTS)


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")
