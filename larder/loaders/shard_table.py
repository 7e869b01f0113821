"""Compact in-memory table of the samples in a split's shards, from the index of samples."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN

if TYPE_CHECKING:
    from larder.contract import SampleEntry

_DIGEST_BYTES = 32


class ShardSample(NamedTuple):
    """A sample read from a shard. `shard` is the shard's URI; `name` is used in messages."""

    shard: str
    name: str
    image: bytes
    label: int
    sha256: bytes | None = None
    """Expected digest of the image, 32 bytes; None skips the check."""


class ShardTable:
    """Label and sha256 of each sample, in shard order; about 40 MB per million samples.

    Raises:
        InputError: If a shard's samples aren't listed together.
    """

    def __init__(self, samples: Iterable[SampleEntry], split: str, folder: str) -> None:
        digests, self._labels = bytearray(), array("l")
        self._extents: dict[str, tuple[int, int]] = {}
        last = ""
        for sample in samples:
            if not sample.file.startswith(f"{split}/"):
                continue
            shard, position = f"{folder}/{sample.file}", len(self._labels)
            if shard != last and shard in self._extents:
                raise InputError(f"the samples of {shard} aren't listed together", next_step=CREATE_AGAIN)
            first, _ = self._extents.get(shard, (position, position))
            self._extents[shard] = first, position + 1
            last = shard
            digests += bytes.fromhex(sample.sha256)
            self._labels.append(sample.label)
        self._digests = bytes(digests)

    def __len__(self) -> int:
        return len(self._labels)

    def check_samples(self, samples: Iterable[ShardSample], shards: Iterable[str]) -> Iterator[ShardSample]:
        """Yield the samples of `shards`, one shard after the other, each with its expected digest.

        Raises:
            InputError: If a sample isn't in the index, has another label there, or is missing.
        """
        remaining_shards = iter(shards)
        shard, position, end = "", 0, 0
        for sample in samples:
            while sample.shard != shard:
                _require_none_missing(shard, end - position)
                shard = next(remaining_shards, sample.shard)
                position, end = self._extents.get(shard, (0, 0))
            if position == end:
                raise InputError(f"{sample.name} isn't one of the samples that the index names", next_step=CREATE_AGAIN)
            if sample.label != self._labels[position]:
                raise InputError(
                    f"{sample.name} has class {sample.label}, and the index says {self._labels[position]}",
                    next_step=CREATE_AGAIN,
                )
            yield sample._replace(sha256=self._digests[_DIGEST_BYTES * position : _DIGEST_BYTES * (position + 1)])
            position += 1
        _require_none_missing(shard, end - position)
        for shard in remaining_shards:
            position, end = self._extents.get(shard, (0, 0))
            _require_none_missing(shard, end - position)


def _require_none_missing(shard: str, missing: int) -> None:
    if missing:
        raise InputError(f"{shard} lacks {missing:,} samples that the index names", next_step=CREATE_AGAIN)
