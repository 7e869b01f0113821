"""What is mounted where, and taking it away.

The kernel's table is asked, since a look at a dead mount fails, and one at a mount whose rclone hangs never returns.
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

TABLE = Path("/proc/self/mountinfo")
DEVICE = "larder:"
"""What our mounts' source begins with in the table; the bucket follows."""
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.1


class Mounted(NamedTuple):
    """A line of the table: where, which kind of file system (fuse.rclone), and of what."""

    point: Path
    kind: str
    source: str

    @property
    def ours(self) -> bool:
        """Whether this stage mounted it, in whichever process or container."""
        return self.kind.startswith("fuse") and self.source.startswith(DEVICE)


def mounted_in(folder: Path) -> list[Mounted]:
    """What is mounted directly in `folder` (absolute, without links), in the order in which it was mounted."""
    try:
        lines = TABLE.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        raise ConfigurationError("mounting needs Linux", next_step="use a Linux machine, or its containers") from None
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw  (proc_pid_mountinfo(5))
    parts = [(*line.split(" - ")[0].split()[4:5], *line.split(" - ")[1].split()[:2]) for line in lines]
    found = [Mounted(Path(_plain(point)), kind, _plain(source)) for point, kind, source in parts]
    return [item for item in found if item.point.parent == folder]


def _plain(word: str) -> str:
    """A word of the table, in which blanks and the like are written as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)


def start_listing(point: Path) -> subprocess.Popen[str]:
    """A process that lists the mount through the kernel: it, and not its caller, waits for a store that hangs."""
    return subprocess.Popen(
        ["ls", "-U", str(point)], env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def fault_of(point: Path, seconds: float = _ANSWER_SECONDS) -> str:
    """Why a listing of the mount fails, in the system's words; "" when it works."""
    listing = start_listing(point)
    try:
        _, words = listing.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        listing.kill()  # it ends when the mount does
        return f"no answer within {seconds:.0f} s"
    return "" if listing.returncode == 0 else words.strip() or f"ls ended with {listing.returncode}"


def is_dead(point: Path) -> bool:
    """Whether nobody serves the mount any more."""
    fault = fault_of(point)
    return any(os.strerror(code) in fault for code in (errno.ENOTCONN, errno.ECONNABORTED))


Unmount = Callable[[Path, bool], str]
"""Unmounts, lazily or not; returns what the system complains of, "" when it is done."""


def take_away(point: Path, grace_seconds: float, say_busy: Callable[[], None], unmount: Unmount) -> bool:
    """Unmount what is mounted at `point`. While files in it are open, wait for `grace_seconds` after `say_busy`.

    Returns False when they stayed open, and it was taken out of the tree all the same. Raises StorageError when this
    user may not unmount it.
    """
    end, said = time.monotonic() + grace_seconds, False
    while fault := _left(unmount, point, lazily=False):
        if os.strerror(errno.EBUSY) not in fault or time.monotonic() >= end:
            break
        if not said:
            say_busy()
            said = True
        time.sleep(_PAUSE_SECONDS)
    if not fault:
        return True
    if fault := _left(unmount, point, lazily=True):
        raise StorageError(
            f"{point} can't be unmounted: {fault}",
            next_step=f"have the one who mounted it, or root, do it: `sudo umount --lazy {point}`",
        )
    return False


def _left(unmount: Unmount, point: Path, *, lazily: bool) -> str:
    """What is complained of; "" when it is done, or somebody else was quicker."""
    fault = unmount(point, lazily)
    return fault if any(item.point == point for item in mounted_in(point.parent)) else ""


def unmount(point: Path, lazily: bool) -> str:
    """An `Unmount` by this process's own right as root, or by FUSE's program for ordinary users."""
    if os.geteuid() != 0:
        return _by_helper(point, lazily)
    try:
        kernel.unmount(str(point), lazily=lazily)
    except OSError as fault:
        return fault.strerror or str(fault)
    return ""


def _by_helper(point: Path, lazily: bool) -> str:
    done = subprocess.run(
        [helper(), "-uz" if lazily else "-u", str(point)],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"


def helper() -> str:
    """FUSE's own program that mounts and unmounts. Raises ConfigurationError when it isn't installed."""
    found = shutil.which("fusermount3") or shutil.which("fusermount")
    if found is None:
        raise ConfigurationError(
            "fusermount3 is not installed, so nothing can be mounted",
            next_step="install the package fuse3, or use this stage's image",
        )
    return found
