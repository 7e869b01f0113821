"""larder.stream itself, as docs/stream.md runs it.

Variants: `second` reads an epoch before the clock starts; `resumed` starts in the middle of an epoch; `samples` leaves
the samples undecoded. `--options` are arguments of ShardStream. It reads with `mode="thread"` in the measured process:
there memory and CPU time can be told, and nothing else needs Python's lock. `stream_mode` compares it with the default.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch  # noqa: F401  # imported before the clock starts

from benchmarks.stream_peers.contestant import Given, run
from larder.stream import ShardStream


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the stream."""
    options: dict[str, Any] = {"threads": given.workers, "mode": "thread"} | given.options
    options.pop("opened", None)  # the clock's
    stream = ShardStream(given.uri, batch_size=given.batch_size, **options)
    if given.variant == "second":
        for _ in stream:
            pass
    if given.variant == "resumed":
        state = stream.state_dict()
        state["segments"] = [[1, given.batch_size, "keep", len(stream) // 2]]
        stream.load_state_dict(state)
    before = stream.bytes_read, stream.requests
    yield 0  # with "second", the clock starts now
    if given.variant == "samples":
        samples = stream.samples()
        while number := sum(1 for _ in zip(range(given.batch_size), samples, strict=False)):
            yield number
    else:
        for _, labels in stream:
            yield len(labels)
    given.extra.update(bytes=stream.bytes_read - before[0], requests=stream.requests - before[1])


if __name__ == "__main__":
    import sys

    run(batches, split_start="second" in sys.argv)
