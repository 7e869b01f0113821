"""Which samples go into which pack, in which order: a function of the tree's index and the settings alone."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from larder.contract import IndexEntry, parse_index
from larder.errors import ConfigurationError, InputError
from larder.packing.layout import Layout
from larder.progress import amount
from larder.terminal import lines

_OFFSET_BITS = 48
_LINE_BYTES = 512  # most are shorter
_SHOWN = 20


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


def require_packable(index: Path, layout: Layout, limits: Limits) -> None:
    """Look at every sample, before anything is written.

    Raises InputError when the format can't hold some, ConfigurationError when some are only larger than a pack: it
    names all of both kinds, or the first of many.
    """
    shown: list[str] = []
    refused = oversize = largest = 0
    for entry in _keyed(parse_index(index), layout):
        size = layout.frame_bytes + layout.sample_bytes(entry)
        if (fault := layout.fault(entry)) is not None:
            refused += 1
        elif size > limits.bytes:
            fault = f"{entry.path} takes {size:,} bytes by itself, and {limits.setting} is {limits.bytes:,}"
            oversize, largest = oversize + 1, max(largest, size)
        if fault is not None and len(shown) < _SHOWN:
            shown.append(fault)
    if shown:
        raise _unpackable(shown, refused, oversize, largest, limits, layout)


def _unpackable(
    shown: list[str], refused: int, oversize: int, largest: int, limits: Limits, layout: Layout
) -> ConfigurationError | InputError:
    count = refused + oversize
    first = f", of which the first {len(shown)} are" if count > len(shown) else ""
    what = lines(f"{amount(count, 'samples')} can't be packed{first}:", *(f"  - {fault}" for fault in shown))
    steps = [layout.remedy] if refused else []
    if oversize:
        steps.append(f"set {limits.setting} to at least {largest}; ten times as much is a start")
    return (InputError if refused else ConfigurationError)(what, next_step="; ".join(steps))


def plan(index: Path, layout: Layout, limits: Limits, seed: int | None) -> Iterator[Pack]:
    """Every pack of samples that `require_packable` let pass, split by split.

    With a `seed` the samples are shuffled, else they keep the index's order.
    """
    with index.open("rb") as file:
        for split, found in itertools.groupby(_places(file, layout), key=lambda item: item[0]):
            places = _order(found, seed)
            yield from _cut(split, (_sample(file, place, layout) for place in places), layout, limits)


def _places(lines: BinaryIO, layout: Layout) -> Iterator[tuple[str, int, str]]:
    """Split, place and path of every line. A place is twice the offset, and one more where the sample needs a key."""
    offset, before = 0, ""
    for line in lines:
        path = IndexEntry.from_json(line).path
        needs_key = layout.needs_key(path, before)
        before = before if needs_key else path
        yield path.partition("/")[0], offset << 1 | needs_key, path
        offset += len(line)


def _keyed(entries: Iterator[IndexEntry], layout: Layout) -> Iterator[IndexEntry]:
    """The entries, sorted by path, with keys for those that need one."""
    before = ""
    for entry in entries:
        if layout.needs_key(entry.path, before):
            yield entry._replace(key=layout.own_key(entry.path))
        else:
            before = entry.path
            yield entry


def _order(found: Iterator[tuple[str, int, str]], seed: int | None) -> Iterator[int]:
    """The places as they come, or in the order of a keyed hash of the paths (BLAKE2b): it depends on no library's
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


def _sample(file: BinaryIO, place: int, layout: Layout) -> bytes:
    """The line at a place, with the sample's key where it needs one."""
    line = _line(file, place >> 1)
    if not place & 1:
        return line
    entry = IndexEntry.from_json(line)
    return entry._replace(key=layout.own_key(entry.path)).to_json().encode() + b"\n"


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
        if held and (size + more > limits.bytes or len(held) == limits.samples):
            yield Pack(layout.path(split, next(numbers)), size, len(held), b"".join(held))
            held, size = [], layout.frame_bytes
        held.append(line)
        size += more
    if held:
        yield Pack(layout.path(split, next(numbers)), size, len(held), b"".join(held))
