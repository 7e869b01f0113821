"""Mounts as root, and serves without any right of root's.

A process of its own, the mounter, keeps the right to mount. Then this process, and rclone with it, becomes the user who
owns the folder, without capabilities: what reads from the store can do no more than that user could.
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
from services.mount.mounter import DONE, MOST_BYTES
from services.mount.place import Place
from services.mount.settings import MountSettings

PROGRAMS = Path(__file__).with_name("bin")
"""What rclone finds in the place of FUSE's fusermount3."""
CHANNEL = "LARDER_MOUNTER"
"""The environment variable with the channel's number."""
_FIRST_FREE = 100
"""rclone's children get handles from 3 on, which would take the channel's place."""
_ANSWER_SECONDS = 20.0
_ROOT = Path(__file__).resolve().parents[2]


class Mounter:
    """The process that mounts, and the way to it."""

    def __init__(self, point: Path, source: str) -> None:
        """Start it. Raises ConfigurationError where it lacks the rights."""
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self._channel, of_rclone = (ours for ours, _ in pairs)
        numbers = [theirs.fileno() for _, theirs in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.mount.mounter", str(point), source, *map(str, numbers)],
            cwd=_ROOT, env={"PYTHONPATH": str(_ROOT)}, pass_fds=numbers, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _, theirs in pairs:
            theirs.close()
        with of_rclone:
            number = fcntl.fcntl(of_rclone.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            self._of_rclone = socket.socket(fileno=number)
        if self._answer() != DONE.decode():
            raise _no_rights()

    def channel_of_rclone(self) -> socket.socket:
        """The way for rclone, which inherits it: close it here then."""
        return self._of_rclone

    def unmount(self, point: Path, lazily: bool) -> str:
        """Unmount a mount of FUSE in the folder; what it complains of, "" when it is done."""
        self._channel.send((b"detach" if lazily else b"unmount") + b"\0" + os.fsencode(point.name))
        answer = self._answer()
        return "" if answer == DONE.decode() else answer

    def _answer(self) -> str:
        """Its answer; empty when it has ended."""
        ready, _, _ = select.select([self._channel], [], [], _ANSWER_SECONDS)
        if not ready:
            raise ServiceError("the process that mounts doesn't answer",
                               next_step="stop the mount, and start it again")  # fmt: skip
        return self._channel.recv(MOST_BYTES).decode(errors="replace")

    def end(self) -> None:
        """Let it end, as it does when nobody can ask it any more."""
        for channel in (self._channel, self._of_rclone):
            channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ANSWER_SECONDS)


def environment_of(channel: socket.socket) -> dict[str, str]:
    """What rclone needs in its environment to have the mounter mount."""
    path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
    return {CHANNEL: str(channel.fileno()), "PATH": path}


def confine(place: Place, settings: MountSettings) -> Mounter:
    """Start the mounter, then give up root's rights for good.

    Raises ConfigurationError where a right is missing that this takes.
    """
    owner = place.folder.stat()
    becomes_owner = owner.st_uid != 0 and _suits_others(settings)
    if not place.cache.is_symlink() and place.cache.is_dir() and place.cache.stat().st_uid != owner.st_uid:
        remove_tree(place.cache)  # of an earlier version, whose rclone was root
    mounter = Mounter(place.point(settings.bucket), f"{REMOTE}:{settings.bucket}")
    try:
        if becomes_owner:
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
        kernel.keep(*((kernel.DAC_OVERRIDE,) if owner.st_uid != os.geteuid() else ()))
    except PermissionError:
        mounter.end()
        raise _no_rights() from None
    return mounter


def _suits_others(settings: MountSettings) -> bool:
    """Whether another user than root can go on: reach what runs here, and the store. So it is in a container.

    Root's own checkout, and keys in root's home, may be closed to others.
    """
    if not settings.aws_access_key_id and (Path.home() / ".aws").exists():
        return False
    programs = [Path(sys.executable), Path(sys.executable).resolve(), Path(__file__).resolve(), Path(binary())]
    return all(folder.stat().st_mode & stat.S_IXOTH for program in programs for folder in program.parents)


def _no_rights() -> ConfigurationError:
    return ConfigurationError(
        "root lacks rights here that mounting takes, or giving up rights",
        next_step="a container needs SYS_ADMIN, DAC_OVERRIDE, SETUID and SETGID, as in compose/mount.yaml",
    )
