"""Read a file, or a byte range of one, at any position and from any process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from larder.sources.limits import SourceLimits
from larder.sources.members import BUFFER_BYTES, EntryFaults, Member, damaged_source_error, quote_name


class ScanPlace(NamedTuple):
    """A place between two members, where another scan can continue. The default is the beginning."""

    position: int = 0
    """Position of the next tar header, or of the next entry in a zip's directory."""
    entries: int = 0
    """Entries of a zip's directory before it."""
    files: int = 0
    """Files before it."""


BEGINNING = ScanPlace()


class RandomAccessArchive:
    """Base class of archives whose members are read by position. Each process opens its own descriptor.

    Args:
        path: The file.
        name: Name of the archive in messages.
        limits: Limits on its content.
        start: Position of the archive in the file. All positions are relative to it.
        length: Length of the archive in bytes; None for the whole file.

    Attributes:
        begin: Where scans begin.
        place: Place after the member that was yielded last; None if no scan can continue there.
        faults: Faults of the entries that the last scan has seen. It raises them at its end.
    """

    parallel = True
    sizes_known = True
    action = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str, limits: SourceLimits, start: int = 0, length: int | None = None) -> None:
        self.path, self.name, self.limits = path, name, limits
        self._start, self._length = start, length
        self._descriptor: int | None = None
        self.begin = BEGINNING
        self.place: ScanPlace | None = None
        self.faults = EntryFaults()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's descriptor. Reading opens it again."""
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._open())
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def length(self) -> int:
        """Return the length of the archive in bytes."""
        return os.fstat(self._open()).st_size if self._length is None else self._length

    def bytes_at(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on, or fewer at the end."""
        if self._length is not None:
            length = max(0, min(length, self._length - start))
        return os.pread(self._descriptor or self._open(), length, self._start + start)

    def iter_range(self, start: int, end: int, member: str) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end` in pieces.

        Args:
            start: Position of the first byte.
            end: Position after the last byte.
            member: Name of the member in messages.

        Raises:
            InputError: If the file ends before `end`.
        """
        while start < end:
            chunk = self.bytes_at(start, min(BUFFER_BYTES, end - start))
            if not chunk:
                raise damaged_source_error(self.name, f"{quote_name(member)} breaks off")
            start += len(chunk)
            yield chunk

    def range_of(self, member: Member) -> tuple[int, int] | None:
        """Return position and length of a member's bytes in the file, or None if they aren't stored uncompressed."""
        return None
