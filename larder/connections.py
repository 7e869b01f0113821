"""Enforce a minimum transfer rate and size limits on HTTP responses, for every client based on urllib3.

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

MIN_BYTES_PER_SECOND = 1024
"""Minimum average rate over the stall time; a slower transfer counts as stalled."""
_WRITE_STALL_FACTOR = 10
"""Factor on the stall time for requests other than GET and HEAD: while a store assembles a large object, it sends only
single spaces."""
_BUFFER_BYTES = 1 << 16
_MAX_INTERIM, _MAX_TRAILERS = 20, 100


class StalledError(OSError):
    """A transfer was slower than the minimum rate."""


class Pace:
    """Require an average of `MIN_BYTES_PER_SECOND` over each period of `seconds` spent waiting."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waited, self._bytes = 0.0, 0

    def add(self, count: int, waited_seconds: float) -> None:
        """Count bytes that arrived.

        Args:
            count: Number of bytes.
            waited_seconds: Time spent waiting for them.

        Raises:
            StalledError: If the period has passed and too few bytes have arrived.
        """
        self._waited += waited_seconds
        self._bytes += count
        if self._waited < self._seconds:
            return
        if self._bytes < MIN_BYTES_PER_SECOND * self._waited:
            raise StalledError(f"only {self._bytes:,} bytes arrived in {self._waited:.0f} s")
        self._waited, self._bytes = 0.0, 0


class _PacedStream(io.RawIOBase):
    """A socket's stream that must keep a `Pace`."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        self._raw, self._pace = raw, pace

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        begin = time.monotonic()
        count = self._raw.readinto(buffer)
        if count:  # the end of the stream doesn't count
            self._pace.add(count, time.monotonic() - begin)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class PacedResponse(HTTPResponse):
    """An HTTP response that must keep a minimum rate, with limited numbers of interim responses and trailers."""

    def __init__(self, sock: Any, debuglevel: int = 0, method: str | None = None, *, seconds: float) -> None:
        super().__init__(sock, debuglevel, method)
        pace = Pace(seconds if method in ("GET", "HEAD") else seconds * _WRITE_STALL_FACTOR)
        stream: Any = self.fp
        self.fp: Any = io.BufferedReader(_PacedStream(stream.detach(), pace), _BUFFER_BYTES)
        self._interim = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise HTTPException(f"more than {_MAX_INTERIM} interim answers")
        status_line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return status_line

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # int() accepts a sign, and -1 would read the whole response into memory
            raise ValueError(size)
        return size

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_MAX_TRAILERS):
            if self.fp.readline(_BUFFER_BYTES) in (b"\r\n", b"\n", b""):
                return
        raise HTTPException(f"more than {_MAX_TRAILERS} trailers")


def pace_pool(pool: P, seconds: float) -> P:
    """Return a subclass of urllib3's connection pool whose responses must keep a minimum rate.

    Args:
        pool: The class of connection pools.
        seconds: Stall time; see `Pace`.
    """
    response = staticmethod(partial(PacedResponse, seconds=seconds))  # Python 3.14 turns a bare partial into a method
    connection = type("Paced", (pool.ConnectionCls,), {"response_class": response})
    return type("PacedPool", (pool,), {"ConnectionCls": connection})  # type: ignore[return-value]


def find_cause(fault: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the first error of class `kind` in the chain of `fault`, or None."""
    return next((cause for cause in error_chain(fault) if isinstance(cause, kind)), None)


def error_chain(fault: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors wrapped in it, as causes, reasons or arguments."""
    pending, seen = [fault], set[int]()
    while pending:
        error = pending.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        named = getattr(error, "kwargs", {})  # botocore keeps causes there
        wrapped = (error.__cause__, getattr(error, "reason", None), *error.args, *named.values())
        pending += [item for item in wrapped if isinstance(item, BaseException)]
