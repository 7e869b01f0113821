"""Decoding alone: simplejpeg with two threads, of files in memory, each thread into one buffer.

This is the ceiling of every loader that decodes whole images on the CPU.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.stream_peers.contestant import Given, run

_TOGETHER = 32


def batches(given: Given) -> Generator[int, None, None]:
    """Decode all files below the folder. The first step reads them."""
    files = [path.read_bytes() for path in sorted(Path(given.uri).rglob("*.jpg"))]
    largest = max(height * width * 3 for height, width, *_ in map(simplejpeg.decode_jpeg_header, files))

    def decode(share: list[bytes]) -> int:
        memory = np.empty(largest, np.uint8)
        for file in share:
            height, width, *_ = simplejpeg.decode_jpeg_header(file)
            simplejpeg.decode_jpeg(file, "RGB", buffer=memory[: height * width * 3].reshape(height, width, 3))
        return len(share)

    yield 0
    with ThreadPoolExecutor(given.workers) as pool:
        yield from pool.map(decode, [files[at : at + _TOGETHER] for at in range(0, len(files), _TOGETHER)])


if __name__ == "__main__":
    run(batches, split_start=True)
