"""Where artifacts lie, on a volume or in a bucket: read in the same way. Places are picklable, since workers read."""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from larder.bucket import Folder, Listed
from larder.contract import META
from larder.errors import StorageError
from larder.store import BucketSettings
from larder.volume import WORK

T = TypeVar("T")
R = TypeVar("R")

PIECE_BYTES = 4 << 20
"""What is read of a large file at a time."""
_PIECES_AHEAD = 4


class Place(Protocol):
    """A folder with an artifact. Absent files raise FileNotFoundError."""

    at_once: ClassVar[int]
    """How many reads are worth having under way in one process."""

    @property
    def name(self) -> str:
        """For people."""

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file from `offset` on: `length` of them, or all; fewer where the file ends before."""

    def list(self) -> Iterator[Listed]:
        """Every file but larder's own, in no order; `etag` is empty where there is none."""


@dataclass(frozen=True)
class VolumePlace:
    """A folder on a volume. Links are no files: nothing that larder makes is one."""

    folder: str
    at_once: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """See Place."""
        return self.folder

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Place."""
        try:
            with open(f"{self.folder}/{path}", "rb", buffering=0) as file:
                file.seek(offset)
                return file.readall() if length is None else file.read(length) or b""
        except (NotADirectoryError, IsADirectoryError) as fault:
            raise FileNotFoundError(path) from fault

    def list(self) -> Iterator[Listed]:
        """See Place."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            with os.scandir(f"{self.folder}/{below}") as items:
                for item in items:
                    if item.is_dir(follow_symlinks=False):
                        if below or item.name != META:
                            waiting.append(f"{below}{item.name}/")
                    elif item.is_file(follow_symlinks=False):
                        yield Listed(below + item.name, item.stat(follow_symlinks=False).st_size, "")


@dataclass(frozen=True)
class BucketPlace:
    """A folder in a bucket. Each process has a client of its own."""

    settings: BucketSettings
    folder: str
    at_once: ClassVar[int] = 16

    @property
    def name(self) -> str:
        """See Place."""
        return self._open.uri

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Place. Raises ServiceError or ConfigurationError when the store fails or refuses."""
        found = self._open.read(path) if length is None else self._open.read_range(path, offset, length)
        if found is None:
            raise FileNotFoundError(path)
        return found

    def list(self) -> Iterator[Listed]:
        """See Place and `read`."""
        return (item for item in self._open.list() if not item.path.startswith(f"{META}/"))

    @property
    def _open(self) -> Folder:
        return _folder(self.settings, self.folder)


@lru_cache(maxsize=8)
def _folder(settings: BucketSettings, name: str) -> Folder:
    return Folder(settings, name)


def pieces(place: Place, path: str, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a file in pieces, in order; a few are read ahead where reading means waiting."""
    end = offset + length
    starts = range(offset, end, PIECE_BYTES)
    ahead = min(place.at_once, _PIECES_AHEAD, len(starts))
    return spread(lambda at: place.read(path, at, min(PIECE_BYTES, end - at)), starts, ahead)


def spread(function: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """`function` of each item, in order, with so many calls under way in threads."""
    if at_once <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def unchanging(volumes: Iterable[Path]) -> Iterator[None]:
    """Keep the stages that write off these volumes. Raises StorageError when one is at work there.

    Needs no right to write: the lock is on the file that such stages lock, where one has made it.
    """
    with ExitStack() as stack:
        for volume in volumes:
            try:
                file = stack.enter_context((volume / WORK / "lock").open("rb"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(
                    f"another run is writing to {volume}", next_step="wait until it has ended, then run again"
                ) from None
        yield
