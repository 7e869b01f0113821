"""The files inside a source: their names made safe, their bytes streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from larder.contract import META
from larder.errors import InputError
from larder.sources.limits import Meter

CHUNK_BYTES = 1 << 20
DEEPEST = 64
"""Folders; no image lies deeper, and a path has an end."""
_LONGEST_PATH_BYTES, _LONGEST_NAME_BYTES = 3800, 255  # what Linux takes, less the volume's own folders
_MOST_SHOWN, _LONGEST_SHOWN = 5, 200

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


class Archive(Source, Protocol):
    """A source that is one file."""

    def scan(self, meter: Meter | None = None) -> Iterator[Member]:
        """The same, counted by `meter` where there is one, else by one of its own."""


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
    if len(parts) > DEEPEST:
        raise UnsafeNameError(f"lies more than {DEEPEST} folders deep")
    if len(name) > _LONGEST_NAME_BYTES // 4:  # else it is short enough in any script
        _check_length(parts)
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


def _check_length(parts: Sequence[str]) -> None:
    if any(len(part.encode()) > _LONGEST_NAME_BYTES for part in parts):
        raise UnsafeNameError(f"has a name of more than {_LONGEST_NAME_BYTES} bytes, which no file system takes")
    if sum(len(part.encode()) + 1 for part in parts) > _LONGEST_PATH_BYTES:
        raise UnsafeNameError(f"has a path of more than {_LONGEST_PATH_BYTES} bytes, which Linux doesn't take")


def link_target(path: str, target: str) -> str:
    """The path that a symbolic link at `path` stands for. Raises UnsafeNameError when it leaves the folder."""
    _check_characters(target)
    if target.startswith("/"):
        raise UnsafeNameError(f"is a link to the absolute path {shown(target)}")
    if len(target) > _LONGEST_PATH_BYTES:
        raise UnsafeNameError(f"is a link with too long a target ({len(target):,} characters)")
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if resolved == ".." or resolved.startswith("../"):
        raise UnsafeNameError(f"is a link that leaves the folder, to {shown(target)}")
    return resolved


def is_litter(path: str) -> bool:
    """Whether an archiver or a desktop left this file: it is no part of the data set."""
    *folders, file = path.split("/")
    return file in _LITTER_FILES or file.startswith("._") or not _LITTER_FOLDERS.isdisjoint(folders)


class BadSourceError(InputError):
    """A source that no other try can unpack: nothing of it may be kept, a better copy must be got."""


UNPACK_BY_HAND = "repack it without these entries, or unpack it by hand and give the folder as the source"


class Faults:
    """What is wrong with a source's entries: all are counted, the first are shown."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._next_step = ""

    def add(self, name: str, why: object, next_step: str = UNPACK_BY_HAND) -> None:
        """Add an entry and what is wrong with it. The first one's next step is shown."""
        self.count += 1
        self._next_step = self._next_step or next_step
        if len(self._first) < _MOST_SHOWN:
            self._first.append(f"{shown(name)} {why}")

    def error(self, source: str) -> BadSourceError:
        """The error for a source with these faults: it must not be unpacked."""
        more = f"; and {self.count - len(self._first):,} more" if self.count > len(self._first) else ""
        return BadSourceError(
            f"{source} is refused, and nothing of it was kept: {'; '.join(self._first)}{more}",
            next_step=self._next_step,
        )

    def raise_if_any(self, source: str) -> None:
        """Raise `error` unless there are no faults."""
        if self.count:
            raise self.error(source)


def refuse(source: str, name: str, why: object, next_step: str = UNPACK_BY_HAND) -> BadSourceError:
    """The error for a source that must not be unpacked because of the entry `name`."""
    faults = Faults()
    faults.add(name, why, next_step)
    return faults.error(source)


def shown(name: str) -> str:
    """A name from a source as messages show it: in quotes, escaped, and not longer than people read."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}…")


def damaged(source: str | Path, why: str) -> BadSourceError:
    """The error for a source that is truncated or corrupt."""
    return BadSourceError(
        f"{source} is damaged: {why}", next_step="get the file again; give LARDER_SOURCE_SHA256 to have it checked"
    )
