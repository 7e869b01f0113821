"""What workers do: read bytes and compare their digest with the one that an index has for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from larder.contract import SampleEntry
from larder.progress import amount
from services.verify.links import Fault
from services.verify.places import Place, pieces, spread

BATCH_RANGES = 64
"""What a worker is given at a time."""


class Range(NamedTuple):
    """Bytes of a file and what they must hash to: `sample` where they are one, else the whole file."""

    path: str
    offset: int
    bytes: int
    sha256: str
    sample: str = ""


class Pack(NamedTuple):
    """A whole file, and its lines of the index of samples as they are there, in the order of the offsets."""

    path: str
    bytes: int
    sha256: str
    lines: bytes

    def samples(self) -> Iterator[SampleEntry]:
        """The samples in it."""
        return map(SampleEntry.from_json, self.lines.splitlines())


class Looked(NamedTuple):
    """What was looked at: contents that were hashed, the bytes that were read for it, and the first that is wrong."""

    contents: int
    bytes: int
    fault: Fault | None = None


def look_at_ranges(place: Place, ranges: Sequence[Range]) -> Looked:
    """Hash each of some ranges."""
    faults = spread(partial(_look_at_range, place), ranges, min(place.at_once, len(ranges)))
    first = next(filter(None, faults), None)
    return Looked(len(ranges), sum(one.bytes for one in ranges), first)


def _look_at_range(place: Place, one: Range) -> Fault | None:
    where = f"{place.name}/{one.path}" + (f", {one.sample} at byte {one.offset}" if one.sample else "")
    digest, length = hashlib.sha256(), 0
    try:
        for piece in pieces(place, one.path, one.offset, one.bytes):
            digest.update(piece)
            length += len(piece)
    except FileNotFoundError:
        return Fault(where, f"sha256 {one.sha256}", "nothing", "it was there a moment ago")
    return _difference(where, one.bytes, one.sha256, length, digest.hexdigest())


def look_at_pack(place: Place, pack: Pack) -> Looked:
    """Read a file once: hash it, and every sample in it."""
    where = f"{place.name}/{pack.path}"
    members = _Members(where, pack.samples())
    whole, length = hashlib.sha256(), 0
    try:
        for piece in pieces(place, pack.path, 0, pack.bytes):
            whole.update(piece)
            members.add(piece, length)
            length += len(piece)
    except FileNotFoundError:
        return Looked(0, length, Fault(where, f"sha256 {pack.sha256}", "nothing", "it was there a moment ago"))
    of_file = _difference(where, pack.bytes, pack.sha256, length, whole.hexdigest())
    fault = members.end()
    if fault and of_file is None:
        fault = fault._replace(cause="the file is what its index says: the index of samples never was right")
    if fault is None and of_file and length == pack.bytes and members.count:
        of_file = of_file._replace(cause="its images are right: what lies between them has changed, such as a label")
    return Looked(members.count + 1, length, fault or of_file)


class _Members:
    """The samples of a file, hashed as its pieces come by."""

    def __init__(self, where: str, samples: Iterable[SampleEntry]) -> None:
        self._where, self._samples = where, iter(samples)
        self._digest = hashlib.sha256()
        self._sample = next(self._samples, None)
        self._fault: Fault | None = None
        self.count = 0

    def add(self, piece: bytes, at: int) -> None:
        """The piece of the file that begins at byte `at`."""
        view, end = memoryview(piece), at + len(piece)
        while (sample := self._sample) is not None:
            last = sample.offset + sample.bytes
            self._digest.update(view[max(sample.offset - at, 0) : max(min(last, end) - at, 0)])
            if last > end:
                return
            self._close(sample, sample.bytes)

    def end(self) -> Fault | None:
        """The first sample that is wrong, once the file has ended."""
        if self._sample is not None:
            self._close(self._sample, 0)
        return self._fault

    def _close(self, sample: SampleEntry, length: int) -> None:
        if self._fault is None:
            where = f"{self._where}, {sample.source} at byte {sample.offset}"
            self._fault = _difference(where, sample.bytes, sample.sha256, length, self._digest.hexdigest())
        self._sample, self._digest = next(self._samples, None), hashlib.sha256()
        self.count += 1


def _difference(where: str, size: int, sha256: str, length: int, found: str) -> Fault | None:
    if length != size:
        return Fault(where, amount(size, "bytes"), amount(length, "bytes"), "it has changed since it was made")
    if found != sha256:
        return Fault(where, f"sha256 {sha256}", f"sha256 {found}", "it has changed since it was made")
    return None
