"""The files inside a source: their names made safe, their bytes streamed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from larder.contract import META
from larder.errors import InputError
from larder.terminal import lines

CHUNK_BYTES = 1 << 20
_DEEPEST = 64  # no image lies deeper, and a path has an end

_LITTER_FOLDERS = {"__MACOSX", META}
_LITTER_FILES = {".DS_Store", "Thumbs.db", "desktop.ini", META}


class Member(NamedTuple):
    """One file in a source. `place` is the source's own way to find its bytes again."""

    path: str
    bytes: int
    place: Any = None
    link: str | None = None
    """For a link, the path of the file it stands for, inside the source; such a member has no bytes of its own."""


class Source(Protocol):
    """Where files come from. A source is picklable, and reads from any process when `parallel`."""

    name: str
    parallel: bool
    """False: members can only be read while scanning, in order."""
    verb: str
    """What is done with its files, in a word."""
    total: int | None
    """The number of its files, where that is known before looking."""
    counted: bool
    """False: the number and size of all members isn't known before the last one is read."""

    def scan(self) -> Iterator[Member]:
        """Every file, without litter, in the source's order. Raises InputError for one that is damaged or unsafe."""

    def read(self, member: Member) -> Iterator[bytes]:
        """A member's bytes in chunks. Raises InputError when they aren't what the source says they are."""


class UnsafeNameError(ValueError):
    """A name that must not be unpacked."""


def safe_path(name: str) -> str:
    """A member's name as a clean relative path. Raises UnsafeNameError for one that could leave the folder."""
    _check_characters(name)
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[2:3] in ("/", "\\")):
        raise UnsafeNameError("is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeNameError("leaves the folder by '..'")
    if len(parts) > _DEEPEST:
        raise UnsafeNameError(f"lies more than {_DEEPEST} folders deep")
    if not parts:
        raise UnsafeNameError("is empty")
    return "/".join(parts)


def _check_characters(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnsafeNameError("is not valid UTF-8") from None
    if "\0" in name:
        raise UnsafeNameError("holds a NUL character")


def link_target(path: str, target: str) -> str:
    """The path that a symbolic link at `path` stands for. Raises UnsafeNameError when it leaves the folder."""
    _check_characters(target)
    if target.startswith("/"):
        raise UnsafeNameError(f"is a link to the absolute path {target!r}")
    resolved = os.path.normpath(str(PurePosixPath(path).parent / target))
    if resolved == ".." or resolved.startswith("../"):
        raise UnsafeNameError(f"is a link that leaves the folder, to {target!r}")
    return resolved


def is_litter(path: str) -> bool:
    """Whether an archiver or a desktop left this file: it is no part of the data set."""
    *folders, file = path.split("/")
    return file in _LITTER_FILES or file.startswith("._") or not _LITTER_FOLDERS.isdisjoint(folders)


class BadSourceError(InputError):
    """A source that no other try can unpack: nothing of it may be kept, a better copy must be got."""


def refuse(source: str, faults: Iterable[str]) -> BadSourceError:
    """The error for a source that must not be unpacked, with every fault found."""
    return BadSourceError(
        lines(f"{source} is refused, and nothing of it was kept:", *(f"  - {fault}" for fault in faults)),
        next_step="repack it without these entries, or unpack it by hand and give the folder as the source",
    )


def damaged(source: str | Path, why: str) -> BadSourceError:
    """The error for a source that is truncated or corrupt."""
    return BadSourceError(
        f"{source} is damaged: {why}", next_step="get the file again; give LARDER_SOURCE_SHA256 to have it checked"
    )
