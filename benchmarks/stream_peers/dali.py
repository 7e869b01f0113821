"""NVIDIA DALI's CPU pipeline, as its documentation runs it on files or on WebDataset shards on a local disk.

`decoders.image`, `resize` of the shorter side and `crop`, on the CPU, two threads. The variant `files` reads a folder
of classes with `readers.file`, normalizes, and makes tensors with the iterator for PyTorch, as its ImageNet example
does. Otherwise `readers.webdataset` reads shards, whose index files (`wds2idx`) are made before the clock starts;
batches are counted as they are, since converting them to tensors would cost more.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIClassificationIterator

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import MEAN, STD


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step makes index files."""
    shards = sorted(str(path) for path in Path(given.uri).glob("*.tar"))
    indexes = _make_indexes(shards, given.folder)
    yield 0

    @pipeline_def(batch_size=given.batch_size, num_threads=given.workers, device_id=None, seed=0)  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        if given.variant == "files":
            encoded, label = fn.readers.file(file_root=given.uri, random_shuffle=True, name="reader")
        else:
            encoded, label = fn.readers.webdataset(
                paths=shards, index_paths=indexes, ext=["jpg", "cls"], random_shuffle=True, name="reader",
                pad_last_batch=False,
            )  # fmt: skip
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=256, interp_type=types.INTERP_LINEAR)
        if given.variant == "files":
            mean, std = ([255 * value for value in values] for values in (MEAN, STD))
            return fn.crop_mirror_normalize(images, crop=(224, 224), dtype=types.FLOAT, mean=mean, std=std), label
        return fn.crop(images, crop=(224, 224)), label

    pipe = pipeline()
    if given.variant == "files":
        for [batch] in DALIClassificationIterator(
            pipe, reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL
        ):
            yield len(batch["label"])
        return
    pipe.build()
    left = int(pipe.reader_meta("reader")["epoch_size"])
    while left > 0:
        images, _ = pipe.run()
        number = min(left, len(images))  # the last batch goes on with the next epoch
        left -= number
        yield number


def _make_indexes(shards: list[str], folder: Path) -> list[str]:
    from wds2idx import IndexCreator

    indexes = [str(folder / f"{number}.idx") for number in range(len(shards))]
    for shard, index in zip(shards, indexes, strict=True):
        with IndexCreator(shard, index, verbose=False) as creator:
            creator.create_index()
    return indexes


if __name__ == "__main__":
    run(batches, split_start=True)
