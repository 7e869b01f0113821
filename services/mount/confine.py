"""Mount as root, but serve the mount without root's rights.

A separate process, the mounter, keeps the right to mount. Then this process, and with it rclone, becomes the user who
owns the folder and drops its capabilities. So the code that reads from the store can do no more than that user.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from larder.errors import ConfigurationError, ServiceError
from larder.rclone import REMOTE, binary
from larder.volume import remove_tree
from services.mount import kernel
from services.mount.mount_folder import MountFolder
from services.mount.mounter import DONE, MAX_MESSAGE_BYTES
from services.mount.settings import MountSettings

PROGRAMS = Path(__file__).with_name("bin")
"""The folder with the replacement for FUSE's fusermount3 that rclone finds."""
CHANNEL = "LARDER_MOUNTER"
"""The environment variable with the channel's file descriptor."""
_FIRST_FREE = 100
"""rclone's children get file descriptors from 3 on, which would replace the channel's."""
_ANSWER_SECONDS = 20.0
_ROOT = Path(__file__).resolve().parents[2]


class Mounter:
    """The process that mounts, and the channels to it."""

    def __init__(self, point: Path, source: str) -> None:
        """Start the process. Raises ConfigurationError if it lacks rights."""
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self._channel, rclone_end = (near_end for near_end, _ in pairs)
        descriptors = [far_end.fileno() for _, far_end in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.mount.mounter", str(point), source, *map(str, descriptors)],
            cwd=_ROOT,
            env={"PYTHONPATH": str(_ROOT)},
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _, far_end in pairs:
            far_end.close()
        with rclone_end:
            number = fcntl.fcntl(rclone_end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            self._rclone_channel = socket.socket(fileno=number)
        if self._receive_answer() != DONE.decode():
            raise _missing_rights_error()

    def rclone_channel(self) -> socket.socket:
        """Return rclone's channel. Close it once rclone has inherited it."""
        return self._rclone_channel

    def unmount(self, point: Path, lazily: bool) -> str:
        """Unmount a FUSE mount in the folder. Return the error message, or "" on success."""
        self._channel.send((b"detach" if lazily else b"unmount") + b"\0" + os.fsencode(point.name))
        answer = self._receive_answer()
        return "" if answer == DONE.decode() else answer

    def _receive_answer(self) -> str:
        """Return the process's answer, or "" if it has ended."""
        ready, _, _ = select.select([self._channel], [], [], _ANSWER_SECONDS)
        if not ready:
            raise ServiceError("the process that mounts doesn't answer", next_step="stop the mount, and start it again")
        return self._channel.recv(MAX_MESSAGE_BYTES).decode(errors="replace")

    def end(self) -> None:
        """Close the channels, upon which the process ends."""
        for channel in (self._channel, self._rclone_channel):
            channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER_SECONDS)


def mounter_environment(channel: socket.socket) -> dict[str, str]:
    """Return the environment variables with which rclone mounts through the mounter."""
    path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
    return {CHANNEL: str(channel.fileno()), "PATH": path}


def confine(mount_folder: MountFolder, settings: MountSettings) -> Mounter:
    """Start the mounter, then permanently give up root's rights.

    Raises ConfigurationError if a required right is missing.
    """
    owner = mount_folder.folder.stat()
    becomes_owner = owner.st_uid != 0 and _can_run_as_owner(settings)
    if (
        not mount_folder.cache.is_symlink()
        and mount_folder.cache.is_dir()
        and mount_folder.cache.stat().st_uid != owner.st_uid
    ):
        remove_tree(mount_folder.cache)  # left by an earlier release that ran rclone as root
    mounter = Mounter(mount_folder.mount_point(settings.bucket), f"{REMOTE}:{settings.bucket}")
    try:
        if becomes_owner:
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
        kernel.keep_capabilities(*((kernel.DAC_OVERRIDE,) if owner.st_uid != os.geteuid() else ()))
    except PermissionError:
        mounter.end()
        raise _missing_rights_error() from None
    return mounter


def _can_run_as_owner(settings: MountSettings) -> bool:
    """Return whether a user other than root can run the programs and reach the store, as in a container.

    Root's own checkout, and keys in root's home, may be inaccessible to others.
    """
    if not settings.aws_access_key_id and (Path.home() / ".aws").exists():
        return False
    programs = [Path(sys.executable), Path(sys.executable).resolve(), Path(__file__).resolve(), Path(binary())]
    return all(folder.stat().st_mode & stat.S_IXOTH for program in programs for folder in program.parents)


def _missing_rights_error() -> ConfigurationError:
    return ConfigurationError(
        "root lacks the rights to mount or to give up rights",
        next_step="a container needs SYS_ADMIN, DAC_OVERRIDE, SETUID and SETGID, as in compose/mount.yaml",
    )
