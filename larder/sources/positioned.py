"""A file, or a range of one, that is read at any position from any process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from larder.sources.limits import Limits
from larder.sources.members import CHUNK_BYTES, Member, damaged, shown


class PositionedFile:
    """An archive whose members are read by their position. Each process opens a descriptor of its own.

    It is a file, or the `length` bytes of it from `start` on. Positions count from `start`.
    """

    parallel = True
    counted = True
    verb = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str, limits: Limits, start: int = 0, length: int | None = None) -> None:
        self.path, self.name, self.limits = path, name, limits
        self._start, self._length = start, length
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's descriptor; reading opens it again."""
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._open())
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor

    def length(self) -> int:
        """The number of bytes."""
        return os.fstat(self._open()).st_size if self._length is None else self._length

    def bytes_at(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on; fewer at the end."""
        if self._length is not None:
            length = max(0, min(length, self._length - start))
        return os.pread(self._descriptor or self._open(), length, self._start + start)

    def chunks_at(self, start: int, end: int, member: str) -> Iterator[bytes]:
        """The bytes from `start` to `end`. Raises InputError when the file ends before; `member` is named in it."""
        while start < end:
            chunk = self.bytes_at(start, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise damaged(self.name, f"{shown(member)} breaks off")
            start += len(chunk)
            yield chunk

    def range_of(self, member: Member) -> tuple[int, int] | None:
        """Start and length of a member's bytes in the file, if they lie there as they are."""
        return None
