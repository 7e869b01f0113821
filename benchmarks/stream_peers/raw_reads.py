"""Ranged reads alone: the shards of a prefix in blocks of 4 MiB, eight requests at a time, over plain http.

The least that Python can do: `http.client` reads each response into memory that is used again. Nothing is checked.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.store_urls import presign_shards

_BLOCK_BYTES, _THREADS = 4 << 20, 8


def batches(given: Given) -> Generator[int, None, None]:
    """Read all shards; yields 1 for each block. The first step lists the shards."""
    own = threading.local()

    def read(url: str, begin: int, end: int) -> int:
        parts = urlsplit(url)
        if not hasattr(own, "connection"):
            own.connection, own.memory = http.client.HTTPConnection(parts.netloc), bytearray(_BLOCK_BYTES)
        own.connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": f"bytes={begin}-{end - 1}"})
        response = own.connection.getresponse()
        view, done = memoryview(own.memory)[: end - begin], 0
        while done < len(view) and (got := response.readinto(view[done:])):
            done += got
        if response.status != http.client.PARTIAL_CONTENT or done < len(view):
            raise RuntimeError(f"{url}: status {response.status}, {done} bytes")
        response.read()
        return done

    ranges = [
        (url, begin, min(begin + _BLOCK_BYTES, length))
        for url, length in presign_shards(given.uri).items()
        for begin in range(0, length, _BLOCK_BYTES)
    ]
    yield 0
    total = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in pool.map(lambda one: read(*one), ranges):
            total += done
            yield 1
    given.extra.update(bytes=total, requests=len(ranges))


if __name__ == "__main__":
    run(batches)
