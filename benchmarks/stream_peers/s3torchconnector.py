"""The Amazon S3 connector for PyTorch, as its documentation runs it on shards: S3IterableDataset of tar files.

Workers share the shards out (`enable_sharding`); the sequential reader, its default, reads ahead in native code, and
Python's tarfile takes the samples out. The variant `objects` is its first example: S3MapDataset over a prefix, one
object per image, which is several times slower.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Generator, Iterator
from typing import Any

import torch
from s3torchconnector import S3ClientConfig, S3IterableDataset, S3MapDataset

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    how = recipe(given.recipe)
    place: dict[str, Any] = {
        "region": "us-east-1",
        "endpoint": os.environ["S3_ENDPOINT_URL"],
        "s3client_config": S3ClientConfig(force_path_style=True),
    }

    class Samples(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            for shard in S3IterableDataset.from_prefix(f"{given.uri}/", enable_sharding=True, **place):
                if shard.key.endswith(".tar"):
                    yield from _read_tar(shard, how.transform)

    objects = given.variant == "objects"
    dataset: Any = Samples()
    if objects:
        dataset = S3MapDataset.from_prefix(
            f"{given.uri}/", transform=lambda file: (how.transform(file.read()), 0), **place
        )
        len(dataset)  # lists the prefix
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        dataset, given.batch_size, shuffle=objects, num_workers=given.workers, collate_fn=how.collate
    )
    yield 0
    for _, labels in loader:
        yield len(labels)


def _read_tar(shard: Any, transform: Any) -> Iterator[tuple[Any, int]]:
    """Yield the samples of a shard: an image and, right behind it, its label."""
    with tarfile.open(fileobj=io.BufferedReader(shard, 1 << 20), mode="r|") as archive:
        image = b""
        for member in archive:
            content = archive.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".cls"):
                yield transform(image), int(content)
            else:
                image = content
            archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise


if __name__ == "__main__":
    run(batches)
