"""Looking at a pack while it is written, in threads: hashing and reading let go of Python's lock."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import Self

from larder.contract import IndexEntry
from larder.errors import StorageError
from larder.packing.source import Source, verified

PIECE_BYTES = 1 << 20
_LOOK_BYTES = 16 << 20
_AHEAD = 4


class Checks:
    """Compares the images that go into one pack with the index, and what its file holds with what was written to it."""

    def __init__(self, source: Source, file: FileIO) -> None:
        self._source, self._file, self._whole = source, file, hashlib.sha256()
        self._readers, self._looker = ThreadPoolExecutor(2), ThreadPoolExecutor(1)
        self._looks: deque[Future[None]] = deque()

    def images(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """The images from the source, read ahead. Raises InputError for one that isn't what the index says."""
        batches = _batches(entries)
        ahead = deque(self._readers.submit(self._read, some) for some in itertools.islice(batches, _AHEAD))
        while ahead:
            yield from ahead.popleft().result()
            ahead.extend(self._readers.submit(self._read, some) for some in itertools.islice(batches, 1))

    def written(self, place: int, piece: bytes) -> None:
        """Read the next piece back. Soon after, StorageError is raised when the file holds something else."""
        self._looks.append(self._looker.submit(self._look, place, piece))
        if len(self._looks) > _AHEAD:
            self._looks.popleft().result()

    def digest(self) -> str:
        """Wait until all that was written is read back; the sha256 of the pack. Raises StorageError: see `written`."""
        while self._looks:
            self._looks.popleft().result()
        return self._whole.hexdigest()

    def _read(self, entries: Sequence[IndexEntry]) -> list[bytes]:
        return list(verified(self._source, entries))

    def _look(self, place: int, piece: bytes) -> None:
        for begin in range(0, len(piece), _LOOK_BYTES):  # a chunk is one piece, and a read gives less than 2 GiB
            part = piece[begin : begin + _LOOK_BYTES]
            if os.pread(self._file.fileno(), len(part), place + begin) != part:
                raise StorageError(
                    f"{self._file.name!r} doesn't hold what was written to it",
                    next_step="look whether something else writes there, or the disk fails (`dmesg`); then run again",
                )
        self._whole.update(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)  # who still reads then may wait for a silent store
        self._looker.shutdown(cancel_futures=True)


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces, of at least PIECE_BYTES but for the last one."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield held[0] if len(held) == 1 else b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _batches(entries: Sequence[IndexEntry]) -> Iterator[Sequence[IndexEntry]]:
    """The same in order, PIECE_BYTES of images at a time."""
    begin = size = 0
    for end, entry in enumerate(entries, 1):
        size += entry.bytes
        if size >= PIECE_BYTES or end == len(entries):
            yield entries[begin:end]
            begin, size = end, 0
