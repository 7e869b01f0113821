"""Define the interface of sources, and check the names of their files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from larder.contract import META
from larder.errors import InputError
from larder.sources.limits import ReadMeter
from larder.tree.file_names import is_image_name, own_folder_error

BUFFER_BYTES = 1 << 20
MAX_DEPTH = 64
"""Maximum depth of folders."""
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 3800, 255  # limits of Linux, minus the volume's own folders
_MAX_SHOWN, _MAX_SHOWN_CHARACTERS = 5, 200

_MACOS = "__MACOSX"
_LITTER_FILES = {".DS_Store", "Thumbs.db", "desktop.ini", META}


class Member(NamedTuple):
    """One file in a source."""

    path: str
    bytes: int
    location: Any = None
    """Position of the file's bytes, in a form that only its source understands."""
    link: str | None = None
    """For a link, the path of its target in the source. Links have no bytes."""


class Source(Protocol):
    """The interface of a source. Sources are picklable."""

    name: str
    parallel: bool
    """Whether any process can read members in any order. If False, read them in order, while scanning."""
    action: str
    """What happens to the files, for messages, such as "copy" or "unpack"."""
    total: int | None
    """Number of files, if it is known before the scan."""
    sizes_known: bool
    """Whether a scan gives the number and size of all members without reading them."""

    def scan(self) -> Iterator[Member]:
        """Yield every file except litter, in the source's order.

        Raises:
            InputError: If the source is damaged, or has entries that are unsafe.
        """

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield the content of a member in pieces.

        Raises:
            InputError: If the content differs from what the source states, such as its length or checksum.
        """


class Archive(Source, Protocol):
    """A source that is a single file."""

    def scan(self, meter: ReadMeter | None = None) -> Iterator[Member]:
        """Yield every file except litter, and count files and bytes with `meter`, or with a new meter."""


def join_chunks(chunks: Iterable[bytes]) -> bytes:
    """Join chunks. Unlike `b"".join`, it doesn't keep them all beside the result: a file may have a gigabyte."""
    joined = io.BytesIO()
    for chunk in chunks:
        joined.write(chunk)
    return joined.getvalue()


class UnsafeNameError(ValueError):
    """A file with this name must not be unpacked. The message continues a sentence that begins with the name."""


def safe_path(name: str) -> str:
    """Return a member's name as a normalized relative path.

    Raises:
        UnsafeNameError: If the path could leave the folder, is too long or too deep, or isn't valid UTF-8.
    """
    _check_characters(name)
    if name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[2:3] in ("/", "\\")):
        raise UnsafeNameError("is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeNameError("leaves the folder by '..'")
    if len(parts) > MAX_DEPTH:
        raise UnsafeNameError(f"lies more than {MAX_DEPTH} folders deep")
    if len(name) > _MAX_NAME_BYTES // 4:  # a shorter name fits in any script
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
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise UnsafeNameError(f"has a name of more than {_MAX_NAME_BYTES} bytes, which no file system supports")
    if sum(len(part.encode()) + 1 for part in parts) > _MAX_PATH_BYTES:
        raise UnsafeNameError(f"has a path of more than {_MAX_PATH_BYTES} bytes, which Linux doesn't support")


def link_target(path: str, target: str) -> str:
    """Resolve a symbolic link in a source.

    Args:
        path: Path of the link.
        target: What the link contains.

    Returns:
        Path of the target in the source.

    Raises:
        UnsafeNameError: If the target is outside the source or its path is invalid.
    """
    _check_characters(target)
    if target.startswith("/"):
        raise UnsafeNameError(f"is a link to the absolute path {quote_name(target)}")
    if len(target) > _MAX_PATH_BYTES:
        raise UnsafeNameError(f"is a link with too long a target ({len(target):,} characters)")
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if resolved == ".." or resolved.startswith("../"):
        raise UnsafeNameError(f"is a link that leaves the folder, to {quote_name(target)}")
    return resolved


def is_litter(path: str) -> bool:
    """Return whether an archiver, a desktop or larder has made this file, so that it isn't part of the dataset.

    Raises:
        BadSourceError: If the file is an image in a folder `_larder`, which may be meant as a class.
    """
    folder, _, file = path.rpartition("/")
    if file in _LITTER_FILES or file.startswith("._"):
        return True
    if _MACOS not in folder and META not in folder:  # the usual case, in a fraction of the time
        return False
    folders = folder.split("/")
    if _MACOS not in folders and META not in folders:
        return False
    if META in folders and is_image_name(file) and not _is_incoming(folders):
        raise own_folder_error(path, BadSourceError)
    return True


def _is_incoming(folders: list[str]) -> bool:
    """Return whether an interrupted load has left the file (docs/contract.md), or it is in another litter folder."""
    return _MACOS in folders or any(folder.startswith("incoming") for folder in folders[folders.index(META) + 1 :])


class BadSourceError(InputError):
    """A source is damaged or unsafe. Unpacking it again can't help, and nothing of it may be kept."""


UNPACK_BY_HAND = "repack it without these entries, or unpack it by hand and give the folder as the source"


class EntryFaults:
    """Collect the faults of a source's entries, for one error that shows the first ones and counts the rest."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []
        self._next_step = ""

    def add(self, name: str, why: object, next_step: str = UNPACK_BY_HAND) -> None:
        """Add an entry and its fault. The error shows the next step of the first one.

        Args:
            name: Name of the entry.
            why: What is wrong with it, as the rest of a sentence that begins with the name.
            next_step: What the user can do.
        """
        self.count += 1
        self._next_step = self._next_step or next_step
        if len(self._first) < _MAX_SHOWN:
            self._first.append(f"{quote_name(name)} {why}")

    def error(self, source: str) -> BadSourceError:
        """Return the error for a source with these faults."""
        more = f"; and {self.count - len(self._first):,} more" if self.count > len(self._first) else ""
        return BadSourceError(
            f"{source} is refused, and nothing of it was kept: {'; '.join(self._first)}{more}",
            next_step=self._next_step,
        )

    def raise_if_any(self, source: str) -> None:
        """Raise the error if there are faults."""
        if self.count:
            raise self.error(source)


def unsafe_source_error(source: str, name: str, why: object, next_step: str = UNPACK_BY_HAND) -> BadSourceError:
    """Return the error for a source that must not be unpacked because of one entry.

    Args:
        source: Name of the source.
        name: Name of the entry.
        why: What is wrong with it.
        next_step: What the user can do.
    """
    faults = EntryFaults()
    faults.add(name, why, next_step)
    return faults.error(source)


def quote_name(name: str) -> str:
    """Format a name from a source for messages: quoted, escaped and shortened."""
    return repr(name if len(name) <= _MAX_SHOWN_CHARACTERS else f"{name[:_MAX_SHOWN_CHARACTERS]}…")


def damaged_source_error(source: str | Path, why: str) -> BadSourceError:
    """Return the error for a source that is truncated or corrupt."""
    return BadSourceError(
        f"{source} is damaged: {why}", next_step="get the file again; give LARDER_SOURCE_SHA256 to check it"
    )
