"""Read the kernel's table of mounts."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

_NOTE = ".mount.json"


class Mount(NamedTuple):
    """A mount point and its propagation.

    Attributes:
        point: The folder.
        shared: Whether mounts below it appear in other mount namespaces.
        slave: Whether it receives mounts from another namespace.
    """

    point: str
    shared: bool
    slave: bool


def mount_of(folder: Path, table: str = "") -> Mount | None:
    """Return the mount that contains a folder; None if the system has no table of mounts (macOS)."""
    try:
        table = table or Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    best: Mount | None = None
    for line in table.splitlines():
        fields, _, _ = line.partition(" - ")
        words = fields.split(" ")
        point = _plain(words[4])
        holds = point == "/" or str(folder) == point or str(folder).startswith(point + "/")
        if holds and (best is None or len(point) >= len(best.point)):  # a later mount on the same point hides others
            tags = [word.partition(":")[0] for word in words[6:]]
            best = Mount(point, "shared" in tags, "master" in tags)
    return best


def below(folder: Path, table: str = "") -> list[str]:
    """Return the distinct mount points at or below a folder."""
    try:
        table = table or Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return sorted(str(item) for item in _entries(folder) if item.is_mount())
    points = (_plain(line.split(" ")[4]) for line in table.splitlines())
    return sorted({point for point in points if point == str(folder) or point.startswith(f"{folder}/")})


def is_served_by_host(folder: Path) -> bool:
    """Return whether the process that serves the mount in a folder was started on this machine, not in a container.

    The stage notes it (services/mount/mount_folder.py), with its PID namespace.
    """
    try:
        return bool(json.loads((folder / _NOTE).read_text("utf-8"))["pids"] == os.readlink("/proc/self/ns/pid"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def has_mount(folder: Path) -> bool:
    """Return whether something is mounted in a folder, or the stage has left files of a mount there."""
    return bool(below(Path(os.path.realpath(folder)))) or any((folder / name).exists() for name in (_NOTE, ".cache"))


def _entries(folder: Path) -> list[Path]:
    return [folder, *folder.iterdir()] if folder.is_dir() else []


def _plain(text: str) -> str:
    """Decode the octal escapes in a word of the table."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)
