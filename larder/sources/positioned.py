"""A file that is read at any position from any process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from larder.sources.members import CHUNK_BYTES, damaged


class PositionedFile:
    """An archive whose members are read by their position. Each process opens a descriptor of its own."""

    parallel = True
    counted = True
    verb = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._descriptor: int | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "name": self.name, "_descriptor": None}

    def close(self) -> None:
        """Close this process's descriptor; reading opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def bytes_at(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on; fewer at the file's end."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._descriptor, length, start)

    def chunks_at(self, start: int, end: int, member: str) -> Iterator[bytes]:
        """The bytes from `start` to `end`. Raises InputError when the file ends before; `member` is named in it."""
        while start < end:
            chunk = self.bytes_at(start, min(CHUNK_BYTES, end - start))
            if not chunk:
                raise damaged(self.name, f"{member!r} breaks off")
            start += len(chunk)
            yield chunk
