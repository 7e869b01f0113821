"""Hold a table of all samples of some shards in arrays, and cut the shards into blocks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larder.errors import InputError
from larder.images import MAX_IMAGE_BYTES
from larder.loaders.hints import CREATE_AGAIN

BLOCK_BYTES = 4 << 20
"""Size of a block. Larger ones take fewer requests, smaller ones shuffle better."""
NO_LABEL = -1
DIGEST_BYTES = 32
_MAX_SHARD_BYTES = 1 << 50
_TOGETHER = 1 << 16

Column = NDArray[Any]
"""Integers of the smallest type that fits."""


class Skipped(NamedTuple):
    """A sample that was left out, and why."""

    shard: str
    offset: int
    reason: str


class Rows(NamedTuple):
    """Some samples, in the order of the shards."""

    shard: Column
    """Number of each sample's shard, int [N]."""
    begin: Column
    """Position of each sample's first tar header, int64 [N]."""
    end: Column
    """Position after the padding of each sample's last member, int64 [N]."""
    offset: Column
    """Position of each image, int64 [N]; -1 if a sample has none."""
    length: Column
    """Length of each image in bytes, int64 [N]."""
    label: Column
    """Label of each sample, int64 [N]; NO_LABEL if it has none."""

    def select(self, which: slice | NDArray[Any]) -> Rows:
        """Return some of the rows."""
        return Rows._make(column[which] for column in self)


@dataclass(frozen=True)
class SampleTable:
    """The samples of some shards, in the order of the shards; 52 bytes for each, if the shards are below 2 GiB.

    Attributes:
        shards: Path of each shard, relative to the folder.
        shard: Shard of each sample, int [N].
        begin, end: Extent of each sample in its shard, with tar headers, int [N].
        offset: Position of each image, int [N]; -1 if a sample has none.
        length: Length of each image, int [N].
        label: Label of each sample, int [N]; NO_LABEL if it has none.
        digests: sha256 of each image, uint8 [N, 32]; None if unknown.
    """

    shards: Sequence[str]
    shard: Column
    begin: Column
    end: Column
    offset: Column
    length: Column
    label: Column
    digests: NDArray[np.uint8] | None

    def digest(self) -> str:
        """Return 16 hexadecimal digits that depend on where each sample is."""
        digest = hashlib.sha256(json.dumps(list(self.shards)).encode())
        for column, kind in ((self.shard, np.int32), (self.begin, np.int64)):
            for at in range(0, len(column), _TOGETHER):
                digest.update(column[at : at + _TOGETHER].astype(kind).data)
        return digest.hexdigest()[:16]

    def labels(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels of some samples, int64."""
        return self.label[samples].astype(np.int64)

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


class TableBuilder:
    """Collects the rows of a table, and checks that they make sense.

    Args:
        uri: Name of the folder, for messages.
        shards: Path of each shard. It may grow until the table is built.
    """

    def __init__(self, uri: str, shards: list[str]) -> None:
        self._uri, self._shards = uri, shards
        self._parts = list[Rows]()
        self._digests = bytearray()
        self._last_shard = self._last_end = -1

    def add(self, rows: Rows, digests: NDArray[np.uint8] | None = None) -> None:
        """Add rows.

        Args:
            rows: The rows.
            digests: sha256 of each image, uint8 [N, 32]; None if unknown.

        Raises:
            InputError: If samples of one shard aren't together and in ascending order, or are too large.
        """
        if not len(rows.shard):
            return
        self._check(rows)
        self._last_shard, self._last_end = int(rows.shard[-1]), int(rows.end[-1])
        position = _smallest(rows.end, np.int32)
        shard, label = (_smallest(column, np.int16) for column in (rows.shard, rows.label))
        kinds = Rows(shard, position, position, position, position, label)
        self._parts.append(Rows._make(column.astype(kind) for column, kind in zip(rows, kinds, strict=True)))
        if digests is not None:
            self._digests += digests.data

    def _check(self, rows: Rows) -> None:
        last_shard = np.append(self._last_shard, rows.shard[:-1])
        last_end = np.append(self._last_end, rows.end[:-1])
        in_order = np.where(rows.shard == last_shard, rows.begin >= last_end, rows.begin >= 0)
        in_order &= rows.shard >= last_shard
        is_sane = (rows.begin <= rows.end) & (rows.end <= _MAX_SHARD_BYTES) & (rows.length <= MAX_IMAGE_BYTES)
        is_sane &= rows.end - rows.begin <= 4 * MAX_IMAGE_BYTES
        at = int(np.argmin(in_order & is_sane))
        shard = f"{self._uri}/{self._shards[rows.shard[at]]}"
        if not in_order[at]:
            raise InputError(
                f"the samples of {shard} aren't listed together, in the order of the shard", next_step=CREATE_AGAIN
            )
        if not is_sane[at]:
            raise InputError(
                f"{shard}, byte {rows.offset[at]:,}: a sample of {rows.length[at]:,} bytes is too large",
                next_step=CREATE_AGAIN,
            )

    def build(self) -> SampleTable:
        """Return the table. The builder is empty then."""
        parts, self._parts = self._parts, []
        none = np.empty(0, np.int16)
        columns = {name: np.concatenate([getattr(part, name) for part in parts] or [none]) for name in Rows._fields}
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, DIGEST_BYTES)
        return SampleTable(self._shards, digests=digests if len(digests) else None, **columns)


def _smallest(column: Column, least: type[np.signedinteger[Any]]) -> Any:
    """Return the smallest type of integers, from `least` on, that the largest number fits."""
    return np.promote_types(least, np.min_scalar_type(-int(column.max()) - 1))
