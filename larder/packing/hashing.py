"""Hashing beside the reading and writing of a pack, in threads of its own: hashes let go of Python's lock."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

from larder.contract import IndexEntry
from larder.packing.source import Source

PIECE_BYTES = 1 << 20
_WAITING = 8


class Hashing:
    """Checks the images that go into one pack, and hashes the pack."""

    def __init__(self, source: Source) -> None:
        self._source, self._whole = source, hashlib.sha256()
        # One thread each: the pieces of the pack have an order.
        self._of_images, self._of_pack = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def images(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """The images from the source. Soon after, InputError is raised for one that isn't what the index says."""
        some: list[tuple[IndexEntry, bytes]] = []
        size = 0
        for entry, data in zip(entries, self._source.contents(entries), strict=True):
            some.append((entry, data))
            size += len(data)
            if size >= PIECE_BYTES:
                self._submit(self._of_images, self._check, some)
                some, size = [], 0
            yield data
        self._submit(self._of_images, self._check, some)

    def add(self, piece: bytes) -> None:
        """Hash the next piece of the pack."""
        self._submit(self._of_pack, self._whole.update, piece)

    def digest(self) -> str:
        """Wait for all that was given; the sha256 of the pack. Raises InputError: see `images`."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._whole.hexdigest()

    def _submit(self, thread: ThreadPoolExecutor, work: Callable[[Any], None], argument: object) -> None:
        self._waiting.append(thread.submit(work, argument))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    def _check(self, images: Sequence[tuple[IndexEntry, bytes]]) -> None:
        for entry, data in images:
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise self._source.changed(entry, "has changed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in (self._of_images, self._of_pack):
            thread.shutdown(cancel_futures=True)


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
