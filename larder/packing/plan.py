"""Plan which samples go into which pack, and in which order, from the tree's index and the settings alone."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from larder.contract import IndexEntry, parse_index
from larder.errors import ConfigurationError, InputError
from larder.packing.pack import Pack, PackLimits
from larder.packing.pack_layout import PackLayout
from larder.progress import format_amount
from larder.terminal import join_lines

_OFFSET_BITS = 48
_LINE_BYTES = 512  # most are shorter
_MAX_SHOWN = 20


def require_packable(index: Path, layout: PackLayout, limits: PackLimits) -> None:
    """Check that every sample fits into a pack. Call it before writing anything.

    Raises:
        InputError: If the format can't hold some samples.
        ConfigurationError: If samples are larger than a pack. Either error lists up to 20 of the faulty samples.
    """
    shown: list[str] = []
    refused = oversize = largest = 0
    for entry in _add_keys(parse_index(index), layout):
        size = layout.frame_bytes + layout.sample_bytes(entry)
        if (fault := layout.reject_reason(entry)) is not None:
            refused += 1
        elif size > limits.bytes:
            fault = f"{entry.path} takes {size:,} bytes by itself, and {limits.setting} is {limits.bytes:,}"
            oversize, largest = oversize + 1, max(largest, size)
        if fault is not None and len(shown) < _MAX_SHOWN:
            shown.append(fault)
    if shown:
        raise _unpackable_error(shown, refused, oversize, largest, limits, layout)


def _unpackable_error(
    shown: list[str], refused: int, oversize: int, largest: int, limits: PackLimits, layout: PackLayout
) -> ConfigurationError | InputError:
    count = refused + oversize
    first = f", of which the first {len(shown)} are" if count > len(shown) else ""
    what = join_lines(
        f"{format_amount(count, 'samples')} can't be packed{first}:", *(f"  - {fault}" for fault in shown)
    )
    steps = [layout.hint] if refused else []
    if oversize:
        steps.append(f"set {limits.setting} to at least {largest}; ten times as much is a start")
    return (InputError if refused else ConfigurationError)(what, next_step="; ".join(steps))


def plan_packs(index: Path, layout: PackLayout, limits: PackLimits, seed: int | None) -> Iterator[Pack]:
    """Yield every pack, split by split. The samples must have passed `require_packable`.

    Args:
        index: The tree's index.
        layout: Format of the packs.
        limits: Maximum size of a pack.
        seed: Seed for shuffling the samples within a split; None keeps the order of the index.
    """
    with index.open("rb") as file:
        for split, samples in itertools.groupby(_list_samples(file, layout), key=lambda item: item[0]):
            marked_offsets = _order_samples(samples, seed)
            yield from _cut_into_packs(
                split, (_read_sample(file, marked_offset, layout) for marked_offset in marked_offsets), layout, limits
            )


def _list_samples(lines: BinaryIO, layout: PackLayout) -> Iterator[tuple[str, int, str]]:
    """Yield split, marked offset and path of each line.

    A marked offset is `offset << 1`, plus 1 if the sample needs a special key.
    """
    offset, previous = 0, ""
    for line in lines:
        path = IndexEntry.from_json(line).path
        special = layout.needs_special_key(path, previous)
        previous = previous if special else path
        yield path.partition("/")[0], offset << 1 | special, path
        offset += len(line)


def _add_keys(entries: Iterator[IndexEntry], layout: PackLayout) -> Iterator[IndexEntry]:
    """Yield the entries, which must be sorted by path, with keys for those that need a special one."""
    previous = ""
    for entry in entries:
        if layout.needs_special_key(entry.path, previous):
            yield entry._replace(key=layout.special_key(entry.path))
        else:
            previous = entry.path
            yield entry


def _order_samples(samples: Iterator[tuple[str, int, str]], seed: int | None) -> Iterator[int]:
    """Return the marked offsets in the given order, or shuffled: sorted by a keyed hash of the paths (BLAKE2b).

    Unlike a random number generator, the hash gives the same order with every version of every library. Sorting takes
    about 50 bytes of memory per sample of a split.
    """
    if seed is None:
        return (marked_offset for _, marked_offset, _ in samples)
    key = str(seed).encode()
    ranks = [
        int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8, key=key).digest()) << _OFFSET_BITS | marked_offset
        for _, marked_offset, path in samples
    ]
    ranks.sort()
    return (rank & ((1 << _OFFSET_BITS) - 1) for rank in ranks)


def _read_sample(file: BinaryIO, marked_offset: int, layout: PackLayout) -> bytes:
    """Return the line at a marked offset, with the sample's key if it needs a special one."""
    line = _read_line(file, marked_offset >> 1)
    if not marked_offset & 1:
        return line
    entry = IndexEntry.from_json(line)
    return entry._replace(key=layout.special_key(entry.path)).to_json().encode() + b"\n"


def _read_line(file: BinaryIO, offset: int) -> bytes:
    """Return the line at an offset. mmap isn't used, since the whole file would count as memory of this process."""
    length = _LINE_BYTES
    while b"\n" not in (read := os.pread(file.fileno(), length, offset)) and len(read) == length:
        length *= 2
    return read[: read.find(b"\n") + 1]


def _cut_into_packs(split: str, lines: Iterator[bytes], layout: PackLayout, limits: PackLimits) -> Iterator[Pack]:
    numbers = itertools.count()
    pack_lines: list[bytes] = []
    size = layout.frame_bytes
    for line in lines:
        entry = IndexEntry.from_json(line)
        sample_bytes = layout.sample_bytes(entry)
        if pack_lines and (size + sample_bytes > limits.bytes or len(pack_lines) == limits.samples):
            yield Pack(layout.path(split, next(numbers)), size, len(pack_lines), b"".join(pack_lines))
            pack_lines, size = [], layout.frame_bytes
        pack_lines.append(line)
        size += sample_bytes
    if pack_lines:
        yield Pack(layout.path(split, next(numbers)), size, len(pack_lines), b"".join(pack_lines))
