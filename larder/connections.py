"""HTTP connections that must make progress, and whose answers have bounds: for every client that builds on urllib3.

`http.client` waits as long as single bytes arrive, and reads interim responses, chunks and trailers without a limit.
"""

from __future__ import annotations

import io
import time
from functools import partial
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.connectionpool import HTTPConnectionPool

P = TypeVar("P", bound="type[HTTPConnectionPool]")

LEAST_BYTES_PER_SECOND = 1024
"""What is slower over the stall time isn't progress."""
_UNANSWERED = 10
"""How many stall times a request that changes something may take: stores send single blanks while they put together a
large object."""
_BUFFER_BYTES = 1 << 16
_MOST_INTERIM, _MOST_TRAILERS = 20, 100


class StalledError(OSError):
    """A transfer that makes no progress, though single bytes may arrive."""


class Pace:
    """Requires progress of a transfer: `LEAST_BYTES_PER_SECOND` on average, in each `seconds` spent waiting."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waited, self._bytes = 0.0, 0

    def add(self, count: int, waited_seconds: float) -> None:
        """Note `count` bytes after waiting for them. Raises StalledError if the time is over with too few bytes."""
        self._waited += waited_seconds
        self._bytes += count
        if self._waited < self._seconds:
            return
        if self._bytes < LEAST_BYTES_PER_SECOND * self._waited:
            raise StalledError(f"only {self._bytes:,} bytes arrived in {self._waited:.0f} s")
        self._waited, self._bytes = 0.0, 0


class _PacedStream(io.RawIOBase):
    """What comes from a socket, at a pace."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        self._raw, self._pace = raw, pace

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        begin = time.monotonic()
        count = self._raw.readinto(buffer)
        if count:  # at the end nothing arrives any more
            self._pace.add(count, time.monotonic() - begin)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class PacedResponse(HTTPResponse):
    """An HTTP answer that must make progress from its first byte on. Interim answers and trailers have a limit."""

    def __init__(self, sock: Any, debuglevel: int = 0, method: str | None = None, *, seconds: float) -> None:
        super().__init__(sock, debuglevel, method)
        pace = Pace(seconds if method in ("GET", "HEAD") else seconds * _UNANSWERED)
        stream: Any = self.fp
        self.fp: Any = io.BufferedReader(_PacedStream(stream.detach(), pace), _BUFFER_BYTES)
        self._interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._interim += 1
        if self._interim > _MOST_INTERIM:
            raise HTTPException(f"more than {_MOST_INTERIM} interim answers")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # int() takes a sign, and -1 would read all there is into memory
            raise ValueError(size)
        return size

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MOST_TRAILERS):
            if self.fp.readline(_BUFFER_BYTES) in (b"\r\n", b"\n", b""):
                return
        raise HTTPException(f"more than {_MOST_TRAILERS} trailers")


def paced(pool: P, seconds: float) -> P:
    """Return a class of urllib3's connection pools like `pool`, whose answers must make progress."""
    answer = partial(PacedResponse, seconds=seconds)
    connection = type("Paced", (pool.ConnectionCls,), {"response_class": answer})
    return type("PacedPool", (pool,), {"ConnectionCls": connection})  # type: ignore[return-value]


def cause_of(fault: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the error of a `kind` that `fault` is, or that is wrapped into it; None where there is none."""
    return next((found for found in chain(fault) if isinstance(found, kind)), None)


def chain(fault: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that are wrapped into it: as causes, reasons, arguments."""
    waiting, seen = [fault], set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        named = getattr(found, "kwargs", {})  # botocore's
        inside = (found.__cause__, getattr(found, "reason", None), *found.args, *named.values())
        waiting += [item for item in inside if isinstance(item, BaseException)]
