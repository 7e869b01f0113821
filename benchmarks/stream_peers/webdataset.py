"""webdataset, as its documentation runs it: WebDataset, shuffle, map, batched, and WebLoader with worker processes.

Shards are read by `curl`, its documented way for http and for presigned URLs. Tried: `pipe:aws s3 cp` starts Python for
each shard, which takes longer than reading it. `batched` in the workers is its documented advice.
"""

from __future__ import annotations

from collections.abc import Generator

import webdataset as wds

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe
from benchmarks.stream_peers.store_urls import presign_shards


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    urls = list(presign_shards(given.uri))
    how = recipe(given.recipe)
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=0)
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(how.transform, int)
        .batched(given.batch_size, **({"collation_fn": how.collate} if how.collate else {}))
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=given.workers)
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
