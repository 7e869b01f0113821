"""Parquet files in a store: the images in them, each with the place of its bytes.

pyarrow reads the footers and the labels. The pages of images are followed by hand (larder.sources.parquet_pages).
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from larder.errors import InputError
from larder.next_step import MAKES
from larder.packing.source import open_folder
from larder.sources.limits import Limits
from larder.sources.parquet import Columns, RowsOfFile, labels_of, opened, path_of
from larder.sources.parquet_pages import CODECS, Chunk, PageError, Value, values_of
from larder.sources.parts import Part
from larder.store import BucketSettings
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify
from services.index.archives import InStore, Range
from services.index.found import Looked
from services.index.listing import Stored
from services.index.look import checked, of_bucket

_NO_LIMITS = Limits(1 << 62, 1 << 62)


class Rows(NamedTuple):
    """A Parquet file to look at, and the object that it is."""

    file: RowsOfFile
    stored: Stored


class _Reader(io.RawIOBase):
    """An object as a file: a request for each read, since pyarrow knows what it needs."""

    def __init__(self, settings: BucketSettings, found: Stored) -> None:
        self._settings, self._found, self._at = settings, found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.bytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(0, self._found.bytes - self._at))
        if not length:
            return 0
        data = open_folder(self._settings, "").read_range(self._found.key, self._at, length) or b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def part_of(settings: BucketSettings, found: Stored) -> Part:
    """A Parquet file for pyarrow."""
    return Part(Path(), found.path, functools.partial(_Reader, of_bucket(settings, found.bucket), found))


@dataclass(frozen=True)
class LookAtParquet:
    """Reads a Parquet file from front to back, and checks each image in it."""

    settings: BucketSettings
    verify: Verify
    columns: Columns
    labels: Mapping[Any, int]
    classes: int

    def __call__(self, rows: Rows) -> Looked:
        """Raises InputError for a file that is damaged, or whose images can't be read where they lie."""
        looked = Looked([], [], [], rows.stored.path)
        for row, (value, label, codec) in enumerate(self._values(rows)):
            path = path_of(rows.file, row, value.data, label, self.classes)
            place = Range(value.offset, value.packed, None if value.packed is None else CODECS[codec], value.at or None)
            try:
                looked.images.append(checked(value.data, path, self.verify, rows.stored, place))
            except RejectError as fault:
                looked.rejects.append((path, str(fault)))
        return looked

    def _values(self, rows: Rows) -> Iterator[tuple[Value, int, str]]:
        pages = InStore(of_bucket(self.settings, rows.stored.bucket), rows.stored, _NO_LIMITS)
        for group, (codec, chunk) in enumerate(self._chunks(rows)):
            labels = labels_of(rows.file, self.columns, self.labels, group)
            try:
                for value, label in zip(values_of(pages.bytes_at, chunk), labels, strict=True):
                    yield value, label, codec
            except PageError as fault:
                raise _unreadable(rows.stored, f"row group {group:,}: {fault}") from None

    def _chunks(self, rows: Rows) -> list[tuple[str, Chunk]]:
        with opened(rows.file.part) as table:
            names = [table.schema.column(number).path for number in range(len(table.schema))]
            image = self.columns.image
            leaf = names.index(f"{image}.bytes" if f"{image}.bytes" in names else image)
            deepest = table.schema.column(leaf).max_definition_level
            groups = [table.metadata.row_group(number).column(leaf) for number in range(table.num_row_groups)]
        found = []
        for column in groups:
            if column.compression not in CODECS:
                raise _unreadable(rows.stored, f"its pages are packed with {column.compression}")
            starts = [column.data_page_offset]
            if column.has_dictionary_page and column.dictionary_page_offset:
                starts.append(column.dictionary_page_offset)
            chunk = Chunk(
                min(starts), column.total_compressed_size, column.num_values, CODECS[column.compression], deepest
            )
            found.append((column.compression, chunk))
        return found


def _unreadable(found: Stored, why: str) -> InputError:
    return InputError(
        f"images can't be read where they lie in {found.uri}: {why}",
        next_step=f"set LARDER_SOURCE for {MAKES['tree']}, which read any Parquet file",
    )
