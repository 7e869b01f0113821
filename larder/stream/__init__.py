"""Read WebDataset shards from a store or a disk as ready batches, at close to the rate at which the cores decode.

    from larder.stream import CenterCrop, ShardStream

    stream = ShardStream("s3://bucket/photos-webdataset/training", batch_size=256, transform=CenterCrop(256, 224))
    for images, labels in stream:  # uint8 [256, 3, 224, 224], channels-last in memory; int64 [256]
        ...

Install the extra: `pip install 'larder-data[stream]'`. Importing this package is cheap; ShardStream imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from larder.stream.transforms import CenterCrop, RandomResizedCrop

if TYPE_CHECKING:
    from larder.stream.shard_stream import ShardStream, normalize

__all__ = ["CenterCrop", "RandomResizedCrop", "ShardStream", "normalize"]


def __getattr__(name: str) -> Any:
    if name in ("ShardStream", "normalize"):
        from larder.stream import shard_stream

        return getattr(shard_stream, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
