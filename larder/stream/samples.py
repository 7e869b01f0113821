"""Hold a table of all samples of some shards in arrays, and cut the shards into blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 4 << 20
"""Size of a block. Larger ones take fewer requests, smaller ones shuffle better."""
NO_LABEL = -1
_DIGEST_BYTES = 32


class SampleRow(NamedTuple):
    """One sample of a shard."""

    shard: int
    """Number of the shard."""
    begin: int
    """Position of the sample's first tar header."""
    end: int
    """Position after the padding of the sample's last member."""
    offset: int
    """Position of the image; -1 if the sample has none."""
    length: int
    """Length of the image in bytes."""
    label: int
    """The label, or NO_LABEL."""
    sha256: bytes = b""
    """Digest of the image, 32 bytes; empty if unknown."""


@dataclass(frozen=True)
class SampleTable:
    """The samples of some shards, in the order of the shards; 76 bytes for each.

    Attributes:
        shards: Path of each shard, relative to the folder.
        shard: Shard of each sample, int32 [N].
        begin, end: Extent of each sample in its shard, with tar headers, int64 [N].
        offset: Position of each image, int64 [N]; -1 if a sample has none.
        length: Length of each image, int64 [N].
        label: Label of each sample, int64 [N]; NO_LABEL if it has none.
        digests: sha256 of each image, uint8 [N, 32]; None if unknown.
    """

    shards: Sequence[str]
    shard: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    label: NDArray[np.int64]
    digests: NDArray[np.uint8] | None

    @classmethod
    def of_rows(cls, shards: Sequence[str], rows: Iterable[SampleRow]) -> SampleTable:
        """Build the table from rows, which are sorted by shard and position."""
        record = np.dtype(
            [
                ("shard", "<i4"),
                *((name, "<i8") for name in ("begin", "end", "offset", "length", "label")),
                ("sha256", "V32"),
            ]
        )
        with_digests = True

        def records() -> Iterable[tuple[object, ...]]:
            nonlocal with_digests
            for row in rows:
                with_digests = with_digests and len(row.sha256) == _DIGEST_BYTES
                yield (*row[:-1], row.sha256.ljust(_DIGEST_BYTES, b"\0"))

        table = np.fromiter(records(), record)
        digests = np.ascontiguousarray(table["sha256"]).view(np.uint8).reshape(len(table), _DIGEST_BYTES)
        columns = {name: np.ascontiguousarray(table[name]) for name in record.names or () if name != "sha256"}
        return cls(shards, digests=digests if with_digests and len(table) else None, **columns)

    def digest(self) -> str:
        """Return 16 hexadecimal digits that depend on where each sample is."""
        digest = hashlib.sha256(json.dumps(list(self.shards)).encode())
        for column in (self.shard, self.begin):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.shard)

    def block_starts(self, block_bytes: int = BLOCK_BYTES) -> NDArray[np.int64]:
        """Cut the shards into blocks of about `block_bytes` bytes; a block never spans two shards.

        Returns:
            The first sample of each block, and the number of samples at the end, int64 [blocks + 1].
        """
        if not len(self):
            return np.zeros(1, np.int64)
        # A new block begins where the sample's position passes a multiple of the block's size, or in a new shard.
        number = self.begin // block_bytes
        is_first = np.ones(len(self), bool)
        is_first[1:] = (np.diff(number) != 0) | (np.diff(self.shard) != 0)
        return np.append(np.flatnonzero(is_first), len(self))
