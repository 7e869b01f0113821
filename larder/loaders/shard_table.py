"""What the samples of a split's shards must be, by the index of samples that the manifest names, kept small."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from larder.errors import InputError
from larder.loaders.remedies import RENEW

if TYPE_CHECKING:
    from larder.contract import SampleEntry

_DIGEST_BYTES = 32


class Sample(NamedTuple):
    """A sample as a shard holds it; `shard` is the shard's URI, and `name` is for messages."""

    shard: str
    name: str
    image: bytes
    label: int
    sha256: bytes | None = None
    """The digest that the image must have; None where nobody looks."""


class ShardTable:
    """Class and sha256 of each sample, in the order in which they lie; about 40 MB for a million.

    Raises InputError where a shard's samples aren't listed together.
    """

    def __init__(self, samples: Iterable[SampleEntry], split: str, folder: str) -> None:
        digests, self._labels = bytearray(), array("l")
        self._extents: dict[str, tuple[int, int]] = {}
        last = ""
        for sample in samples:
            if not sample.file.startswith(f"{split}/"):
                continue
            shard, at = f"{folder}/{sample.file}", len(self._labels)
            if shard != last and shard in self._extents:
                raise InputError(f"the samples of {shard} aren't listed together", next_step=RENEW)
            last, self._extents[shard] = shard, (self._extents.get(shard, (at, at))[0], at + 1)
            digests += bytes.fromhex(sample.sha256)
            self._labels.append(sample.label)
        self._digests = bytes(digests)

    def __len__(self) -> int:
        return len(self._labels)

    def checked(self, samples: Iterable[Sample], shards: Iterable[str]) -> Iterator[Sample]:
        """The samples of these shards, one shard after the other, each with the digest that it must have.

        Raises InputError for one that the index of samples doesn't have there, or has with another class, and where
        one is missing.
        """
        following = iter(shards)
        shard, at, end = "", 0, 0
        for sample in samples:
            while sample.shard != shard:
                _require_whole(shard, end - at)
                shard = next(following, sample.shard)
                at, end = self._extents.get(shard, (0, 0))
            if at == end:
                raise InputError(f"{sample.name} is none of the samples that the index names", next_step=RENEW)
            if sample.label != self._labels[at]:
                raise InputError(
                    f"{sample.name} has class {sample.label}, and the index says {self._labels[at]}", next_step=RENEW
                )
            yield sample._replace(sha256=self._digests[_DIGEST_BYTES * at : _DIGEST_BYTES * (at + 1)])
            at += 1
        _require_whole(shard, end - at)
        for shard in following:
            at, end = self._extents.get(shard, (0, 0))
            _require_whole(shard, end - at)


def _require_whole(shard: str, missing: int) -> None:
    if missing:
        raise InputError(f"{shard} lacks {missing:,} samples that the index names", next_step=RENEW)
