"""List mounts, and unmount them.

The list comes from the kernel's table: accessing a dead mount fails, and accessing one whose rclone hangs blocks
forever.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from larder.errors import ConfigurationError, StorageError
from services.mount import kernel

MOUNT_TABLE = Path("/proc/self/mountinfo")
DEVICE = "larder:"
"""The beginning of the source of larder's mounts in the table; the bucket follows."""
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.1


class MountEntry(NamedTuple):
    """A line of the table: mount point, kind of file system (fuse.rclone), and source."""

    point: Path
    kind: str
    source: str

    @property
    def is_ours(self) -> bool:
        """Whether this stage mounted it, in any process or container."""
        return self.kind.startswith("fuse") and self.source.startswith(DEVICE)


def list_mounts(folder: Path) -> list[MountEntry]:
    """Return the mounts directly in `folder` (absolute, without links), in the order in which they were mounted."""
    try:
        lines = MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise ConfigurationError("mounting needs Linux", next_step="use a Linux machine, or its containers") from None
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw  (proc_pid_mountinfo(5))
    parts = [(*line.split(" - ")[0].split()[4:5], *line.split(" - ")[1].split()[:2]) for line in lines]
    mounts = [MountEntry(Path(_decode_word(point)), kind, _decode_word(source)) for point, kind, source in parts]
    return [item for item in mounts if item.point.parent == folder]


def _decode_word(word: str) -> str:
    r"""Decode a word of the table, in which blanks and similar characters are escaped as \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


def start_listing(point: Path) -> subprocess.Popen[str]:
    """Start a process that lists the mount, so that a hanging store blocks only that process."""
    return subprocess.Popen(
        ["ls", "-U", str(point)],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_mount_error(point: Path, seconds: float = _ANSWER_SECONDS) -> str:
    """List the mount. Return the system's error message, or "" on success."""
    listing = start_listing(point)
    try:
        _, message = listing.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        listing.kill()  # it ends when the mount does
        return f"no answer within {seconds:.0f} s"
    return "" if listing.returncode == 0 else message.strip() or f"ls ended with {listing.returncode}"


def is_dead(point: Path) -> bool:
    """Return whether the process that served the mount has ended."""
    fault = find_mount_error(point)
    return any(os.strerror(code) in fault for code in (errno.ENOTCONN, errno.ECONNABORTED))


UnmountFunction = Callable[[Path, bool], str]
"""Unmounts, lazily or not, and returns the system's error message, or "" on success."""


def unmount_or_detach(
    point: Path, grace_seconds: float, report_busy: Callable[[], None], unmount: UnmountFunction
) -> bool:
    """Unmount `point`. If files are open, call `report_busy` and wait up to `grace_seconds`, then unmount lazily.

    Returns False if it had to unmount lazily. Raises StorageError if this user may not unmount it.
    """
    end, reported = time.monotonic() + grace_seconds, False
    while fault := _try_unmount(unmount, point, lazily=False):
        if os.strerror(errno.EBUSY) not in fault or time.monotonic() >= end:
            break
        if not reported:
            report_busy()
            reported = True
        time.sleep(_PAUSE_SECONDS)
    if not fault:
        return True
    if fault := _try_unmount(unmount, point, lazily=True):
        raise StorageError(
            f"{point} can't be unmounted: {fault}",
            next_step=f"ask root, or the user who mounted it, to run `sudo umount --lazy {point}`",
        )
    return False


def _try_unmount(unmount: UnmountFunction, point: Path, *, lazily: bool) -> str:
    """Unmount. Return the error message, or "" if nothing is mounted at `point` any more."""
    fault = unmount(point, lazily)
    return fault if any(item.point == point for item in list_mounts(point.parent)) else ""


def unmount(point: Path, lazily: bool) -> str:
    """Unmount as root with a system call, as an ordinary user with FUSE's program. See `UnmountFunction`."""
    if os.geteuid() != 0:
        return _unmount_with_fusermount(point, lazily)
    try:
        kernel.unmount(str(point), lazily=lazily)
    except OSError as fault:
        return fault.strerror or str(fault)
    return ""


def _unmount_with_fusermount(point: Path, lazily: bool) -> str:
    result = subprocess.run(
        [find_fusermount(), "-uz" if lazily else "-u", str(point)],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return "" if result.returncode == 0 else result.stderr.strip() or f"it ended with {result.returncode}"


def find_fusermount() -> str:
    """Return the path of FUSE's program to mount and unmount. Raises ConfigurationError if it isn't installed."""
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise ConfigurationError(
            "fusermount3 is not installed, so nothing can be mounted",
            next_step="install the package fuse3, or use this stage's image",
        )
    return program
