"""Which samples go into which pack, in which order: a function of the tree's index and the settings alone."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from larder.contract import IndexEntry
from larder.errors import ConfigurationError
from larder.packing.layout import Layout

_OFFSET_BITS = 48
_LINE_BYTES = 512  # most are shorter


class Limits(NamedTuple):
    """Where a pack ends."""

    bytes: int
    samples: int
    """0 for no limit."""
    setting: str
    """The name of the setting that says how many bytes, for messages."""


class Pack(NamedTuple):
    """One file to write. `lines` are those of the tree's index, in the order of the samples: compact, for many wait."""

    path: str
    size: int
    """In bytes."""
    samples: int
    lines: bytes

    def entries(self) -> list[IndexEntry]:
        """The samples."""
        return [IndexEntry.from_json(line) for line in self.lines.splitlines()]


def plan(index: Path, layout: Layout, limits: Limits, seed: int | None) -> Iterator[Pack]:
    """Every pack, split by split. With a `seed` the samples are shuffled, else they keep the index's order.

    Raises InputError when the format can't hold a sample, ConfigurationError when a sample is larger than a pack.
    """
    with index.open("rb") as file:
        for split, found in itertools.groupby(_checked(file, layout), key=lambda item: item[0]):
            places = _order(found, seed)
            yield from _cut(split, (_line(file, place) for place in places), layout, limits)


def _checked(lines: BinaryIO, layout: Layout) -> Iterator[tuple[str, int, str]]:
    """Split, offset and path of every line."""
    place, before = 0, None
    for line in lines:
        entry = IndexEntry.from_json(line)
        split = entry.path.partition("/")[0]
        same = before is not None and before.path.startswith(f"{split}/")
        layout.check(entry, before if same else None)
        yield split, place, entry.path
        place, before = place + len(line), entry


def _order(found: Iterator[tuple[str, int, str]], seed: int | None) -> Iterator[int]:
    """The offsets as they come, or in the order of a keyed hash of the paths (BLAKE2b): it depends on no library's
    random numbers, and takes about 50 bytes of memory for each sample of a split.
    """
    if seed is None:
        return (place for _, place, _ in found)
    key = str(seed).encode()
    ranks = [
        int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8, key=key).digest()) << _OFFSET_BITS | place
        for _, place, path in found
    ]
    ranks.sort()
    return (rank & ((1 << _OFFSET_BITS) - 1) for rank in ranks)


def _line(file: BinaryIO, place: int) -> bytes:
    """The line at an offset, whatever else is read of the file. Not by mmap: then all of it counted as our memory."""
    length = _LINE_BYTES
    while b"\n" not in (read := os.pread(file.fileno(), length, place)) and len(read) == length:
        length *= 2
    return read[: read.find(b"\n") + 1]


def _cut(split: str, lines: Iterator[bytes], layout: Layout, limits: Limits) -> Iterator[Pack]:
    numbers = itertools.count()
    held: list[bytes] = []
    size = layout.frame_bytes
    for line in lines:
        entry = IndexEntry.from_json(line)
        more = layout.sample_bytes(entry)
        if layout.frame_bytes + more > limits.bytes:
            raise ConfigurationError(
                f"{limits.setting}={limits.bytes}: {entry.path} takes {layout.frame_bytes + more:,} bytes by itself",
                next_step=f"set {limits.setting} to at least that; ten times as much is a start",
            )
        if held and (size + more > limits.bytes or len(held) == limits.samples):
            yield Pack(layout.path(split, next(numbers)), size, len(held), b"".join(held))
            held, size = [], layout.frame_bytes
        held.append(line)
        size += more
    if held:
        yield Pack(layout.path(split, next(numbers)), size, len(held), b"".join(held))
