"""LitData, as its documentation runs it: StreamingDataset with a transform, and StreamingDataLoader.

The cache is empty. `batch_decode="all"` is twice as fast here as the default, `auto`: otherwise it reads a whole chunk
again at each miss of its decode window. Its client refuses plain http and has no option for it: hence a private name.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    how = recipe(given.recipe)

    def transform(sample: dict[str, Any]) -> tuple[Any, int]:
        return how.transform(bytes(memoryview(sample["image"]))), sample["label"]

    dataset = StreamingDataset(
        given.uri,
        cache_dir=str(given.folder),
        shuffle=True,
        transform=transform,
        batch_decode="all",
        storage_options={
            "endpoint_url": os.environ["S3_ENDPOINT_URL"],
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "region_name": "us-east-1",
        },
    )
    loader = StreamingDataLoader(
        dataset, batch_size=given.batch_size, num_workers=given.workers, collate_fn=how.collate, shuffle=True
    )
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
