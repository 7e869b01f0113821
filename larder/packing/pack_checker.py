"""Verify a pack while it is written. This uses threads, since hashing and reading release the GIL."""

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
from larder.packing.pack_input import PackInput, read_verified

PIECE_BYTES = 1 << 20
_READ_BYTES = 16 << 20
_MAX_PENDING = 4


class PackChecker:
    """Compare the images for one pack with the index, and the pack's file with what was written to it."""

    def __init__(self, source: PackInput, file: FileIO) -> None:
        self._source, self._file, self._sha256 = source, file, hashlib.sha256()
        self._readers, self._check_thread = ThreadPoolExecutor(2), ThreadPoolExecutor(1)
        self._checks: deque[Future[None]] = deque()

    def read_images(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """Yield the images from the source, reading ahead. Raises InputError if an image differs from the index."""
        batches = _batches(entries)
        ahead = deque(self._readers.submit(self._read, batch) for batch in itertools.islice(batches, _MAX_PENDING))
        while ahead:
            yield from ahead.popleft().result()
            ahead.extend(self._readers.submit(self._read, batch) for batch in itertools.islice(batches, 1))

    def check_written(self, offset: int, piece: bytes) -> None:
        """Schedule reading a written piece back.

        Args:
            offset: Position of the piece in the file, in bytes.
            piece: The bytes that were written.

        Raises:
            StorageError: If an earlier piece differs from the file's content.
        """
        self._checks.append(self._check_thread.submit(self._check_piece, offset, piece))
        if len(self._checks) > _MAX_PENDING:
            self._checks.popleft().result()

    def digest(self) -> str:
        """Wait until all pieces are read back. Return the pack's sha256. Raises StorageError like `check_written`."""
        while self._checks:
            self._checks.popleft().result()
        return self._sha256.hexdigest()

    def _read(self, entries: Sequence[IndexEntry]) -> list[bytes]:
        return list(read_verified(self._source, entries))

    def _check_piece(self, offset: int, piece: bytes) -> None:
        for begin in range(0, len(piece), _READ_BYTES):  # a chunk is one piece, and one read returns less than 2 GiB
            part = piece[begin : begin + _READ_BYTES]
            if os.pread(self._file.fileno(), len(part), offset + begin) != part:
                raise StorageError(
                    f"{self._file.name!r} doesn't hold what was written to it",
                    next_step="check whether something else writes there or the disk fails (`dmesg`), then run again",
                )
        self._sha256.update(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)  # a reader may wait for a store that doesn't answer
        self._check_thread.shutdown(cancel_futures=True)


def join_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces into pieces of at least PIECE_BYTES; the last one may be smaller."""
    joined: list[bytes] = []
    size = 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield joined[0] if len(joined) == 1 else b"".join(joined)
            joined, size = [], 0
    if joined:
        yield b"".join(joined)


def _batches(entries: Sequence[IndexEntry]) -> Iterator[Sequence[IndexEntry]]:
    """Split the entries into batches of about PIECE_BYTES of images, in order."""
    begin = size = 0
    for end, entry in enumerate(entries, 1):
        size += entry.bytes
        if size >= PIECE_BYTES or end == len(entries):
            yield entries[begin:end]
            begin, size = end, 0
