"""NVIDIA DALI's CPU pipeline, as its documentation runs it on WebDataset shards on a local disk.

`readers.webdataset`, `decoders.image`, `resize` of the shorter side and `crop`, on the CPU, two threads. Its batches
are counted as they are: converting them to tensors would cost more. Index files (`wds2idx`) are made before the clock
starts.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from wds2idx import IndexCreator

from benchmarks.stream_peers.contestant import Given, run


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step makes index files."""
    shards = sorted(str(path) for path in Path(given.uri).glob("*.tar"))
    indexes = [str(given.folder / f"{number}.idx") for number in range(len(shards))]
    for shard, index in zip(shards, indexes, strict=True):
        with IndexCreator(shard, index, verbose=False) as creator:
            creator.create_index()
    yield 0

    @pipeline_def(batch_size=given.batch_size, num_threads=given.workers, device_id=None, seed=0)  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        encoded, label = fn.readers.webdataset(
            paths=shards, index_paths=indexes, ext=["jpg", "cls"], random_shuffle=True, name="reader",
            pad_last_batch=False,
        )  # fmt: skip
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=256, interp_type=types.INTERP_LINEAR)
        return fn.crop(images, crop=(224, 224)), label

    pipe = pipeline()
    pipe.build()
    left = int(pipe.reader_meta("reader")["epoch_size"])
    while left > 0:
        images, _ = pipe.run()
        number = min(left, len(images))  # the last batch goes on with the next epoch
        left -= number
        yield number


if __name__ == "__main__":
    run(batches, split_start=True)
