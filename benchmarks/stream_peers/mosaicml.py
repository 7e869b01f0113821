"""MosaicML Streaming, as its documentation runs it: a StreamingDataset with `__getitem__`, and StreamingDataLoader.

The local cache is empty; samples are MDS with the columns image (bytes) and label (int). It is given `batch_size`, as
the documentation demands, which also sets how far it downloads in advance.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from streaming import StreamingDataLoader, StreamingDataset

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    how = recipe(given.recipe)

    class Photos(StreamingDataset):  # type: ignore[misc]  # no types
        def __getitem__(self, at: Any) -> tuple[Any, int]:
            sample = super().__getitem__(at)
            return how.transform(sample["image"]), sample["label"]

    dataset = Photos(remote=given.uri, local=str(given.folder), shuffle=True, batch_size=given.batch_size)
    loader = StreamingDataLoader(
        dataset, batch_size=given.batch_size, num_workers=given.workers, collate_fn=how.collate, drop_last=False
    )
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
