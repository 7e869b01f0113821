"""Parse larder's index of samples into a table, while it arrives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from larder.contract import MAX_LINE_BYTES, SampleEntry, invalid_line_error
from larder.entries import MAX_INT64
from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.shards import member_names
from larder.stream.index_lines import Lines, parse_lines
from larder.stream.samples import Rows, SampleTable, TableBuilder
from larder.tar import BLOCK_BYTES, header_bytes, member_bytes

_OTHER_SPLIT = -1


class IndexParser:
    """Makes a table of a split's samples from pieces of the index. It keeps no objects of single samples.

    Args:
        split: The split, such as "training".
        classes: Number of classes.
        uri: Name of the folder in messages.
        name: Name of the index in messages.
        advance: Called with the number of samples that were read, again and again.
    """

    def __init__(self, split: str, classes: int, uri: str, name: str, advance: Callable[[int], None]) -> None:
        self._start, self._classes, self._uri, self._name, self._advance = f"{split}/", classes, uri, name, advance
        self._shards, self._shard_numbers = list[str](), dict[str, int]()
        self._builder = TableBuilder(uri, self._shards)
        self._rest, self._lines = b"", 0
        self._fault: InputError | None = None

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes of the index. `finish` raises faults, after the index's digest was checked."""
        if self._fault is not None:
            return
        text = self._rest + piece
        cut = text.rfind(b"\n") + 1
        self._rest = text[cut:]
        try:
            if cut:
                self._parse(text[:cut])
            if len(self._rest) > MAX_LINE_BYTES:
                self._parse(self._rest + b"\n")
        except InputError as fault:
            self._fault = fault

    def finish(self) -> SampleTable:
        """Return the table.

        Raises:
            InputError: If a line is invalid, or the samples make no sense.
        """
        if self._rest:
            self.feed(b"\n")
        if self._fault is not None:
            raise self._fault
        return self._builder.build()

    def _parse(self, text: bytes) -> None:
        """Parse whole lines. Raises InputError at the first fault, after the samples before it."""
        lines = parse_lines(text)
        entries, fault = self._parse_others(text, lines)
        valid = len(lines.begin) if fault is None else fault[0]
        shard = self._shards_of(text, lines, entries, valid)
        rows, digests = _rows_of(lines, shard, entries)
        own = np.flatnonzero(shard != _OTHER_SPLIT)
        strange = own[rows.label[own] >= self._classes]
        if len(strange):
            own = own[own < strange[0]]
        self._builder.add(rows.select(own), digests[own])
        if len(strange):
            raise self._strange_label_error(SampleEntry.checked(lines.line(int(strange[0]), text)))
        if fault is not None:
            raise invalid_line_error(self._lines + fault[0] + 1, self._name, fault[1])
        self._lines += valid
        self._advance(len(own))

    def _parse_others(self, text: bytes, lines: Lines) -> tuple[dict[int, SampleEntry], tuple[int, ValueError] | None]:
        """Return the entries of the lines that aren't plain, and the first of them that is invalid, and why."""
        entries: dict[int, SampleEntry] = {}
        for number in np.flatnonzero(~lines.is_plain).tolist():
            line = lines.line(number, text)
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"it has more than {MAX_LINE_BYTES:,} bytes")
                entries[number] = SampleEntry.checked(line)
            except ValueError as error:
                return entries, (number, error)
        return entries, None

    def _shards_of(self, text: bytes, lines: Lines, entries: dict[int, SampleEntry], valid: int) -> NDArray[np.int64]:
        """Return the shard of each of the first `valid` lines, int64; _OTHER_SPLIT for those of another split."""
        firsts = np.flatnonzero(~lines.is_same_file[:valid])
        numbers = []
        for line in firsts.tolist():
            entry = entries.get(line)
            file = text[lines.file_begin[line] : lines.file_end[line]].decode() if entry is None else entry.file
            numbers.append(self._number_of(file))
        return np.repeat(np.array(numbers, np.int64), np.diff(firsts, append=valid))

    def _number_of(self, file: str) -> int:
        if not file.startswith(self._start):
            return _OTHER_SPLIT
        if file not in self._shard_numbers:
            self._shard_numbers[file] = len(self._shards)
            self._shards.append(file)
        return self._shard_numbers[file]

    def _strange_label_error(self, entry: SampleEntry) -> InputError:
        return InputError(
            f"the index of samples of {self._uri}: {entry.source!r} has class {entry.label}; the manifest names "
            f"{self._classes:,}",
            next_step=CREATE_AGAIN,
        )


def _rows_of(lines: Lines, shard: NDArray[np.int64], entries: dict[int, SampleEntry]) -> tuple[Rows, NDArray[np.uint8]]:
    """Return the rows of the first lines, as many as `shard` has, and their digests.

    A sample's members are an image and, right behind it, a label (`larder.shards`).
    """
    valid = len(shard)
    offset, length, label = lines.offset[:valid], lines.length[:valid], lines.label[:valid]
    begin = offset - BLOCK_BYTES  # the header of a plain line's image takes one block, and so do its label's two parts
    end = offset + length + -length % BLOCK_BYTES + 2 * BLOCK_BYTES
    rows, digests = Rows(shard, begin, end, offset, length, label), lines.digest[:valid]
    for number, entry in entries.items():
        image, label_name = member_names(entry.source, entry.key)
        padded = entry.bytes + -entry.bytes % BLOCK_BYTES
        last = entry.offset + padded + member_bytes(label_name, len(str(entry.label)))
        values = entry.offset - header_bytes(image), min(last, MAX_INT64), entry.offset, entry.bytes, entry.label
        for column, value in zip(rows[1:], values, strict=True):
            column[number] = value
        digests[number] = np.frombuffer(bytes.fromhex(entry.sha256), np.uint8)
    return rows, digests
