"""Find the images in Parquet files in a store, with the location of each one's bytes.

pyarrow reads the footers and the labels. larder.sources.parquet_pages parses the pages of images.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from larder.errors import InputError
from larder.next_step import CREATED_BY
from larder.packing.pack_input import open_prefix
from larder.sources.limits import SourceLimits
from larder.sources.parquet import image_path
from larder.sources.parquet_columns import ParquetColumns, ParquetPart
from larder.sources.parquet_labels import read_labels
from larder.sources.parquet_pages import CODECS, ColumnChunk, ColumnValue, PageError, read_values
from larder.sources.parquet_reader import open_table
from larder.sources.parts import SourcePart
from larder.store import BucketSettings, with_bucket
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify
from services.index.archives import ByteRange, ObjectFile, changed_object_error
from services.index.check_ledger import CheckResult
from services.index.checkers import check_content
from services.index.listing import StoredObject

_NO_ROW = "no row"
_NO_LIMITS = SourceLimits(1 << 62, 1 << 62)


class ParquetJob(NamedTuple):
    """A Parquet file to check, and its object."""

    file: ParquetPart
    stored: StoredObject


class _Reader(io.RawIOBase):
    """An object as a file. Each read is a request, since pyarrow reads only what it needs."""

    def __init__(self, settings: BucketSettings, stored: StoredObject) -> None:
        self._settings, self._stored, self._at = settings, stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.bytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), max(0, self._stored.bytes - self._at))
        if not length:
            return 0
        data = open_prefix(self._settings, "").read_range(self._stored.key, self._at, length, self._stored.etag)
        if data is None:
            raise changed_object_error(self._stored)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def make_part(settings: BucketSettings, stored: StoredObject) -> SourcePart:
    """Return an object as a Parquet file for pyarrow."""
    return SourcePart(Path(), stored.path, functools.partial(_Reader, with_bucket(settings, stored.bucket), stored))


@dataclass(frozen=True)
class ParquetChecker:
    """Reads a Parquet file sequentially, and checks each image in it."""

    settings: BucketSettings
    verify: Verify
    columns: ParquetColumns
    labels: Mapping[Any, int]
    classes: int

    def __call__(self, job: ParquetJob) -> CheckResult:
        """Check one file. Raises InputError if it is damaged, or if its images can't be read in place."""
        result = CheckResult([], [], [], job.stored.path)
        for row, (value, assigned, codec) in enumerate(self._values(job)):
            if assigned is None:
                continue
            split, label = assigned
            path = image_path(job.file._replace(split=split), row, value.data, label, self.classes)
            byte_range = ByteRange(
                value.offset, value.packed, None if value.packed is None else CODECS[codec], value.at or None
            )
            try:
                result.images.append(check_content(value.data, path, self.verify, job.stored, byte_range))
            except RejectError as fault:
                result.rejects.append((path, str(fault)))
        return result

    def _values(self, job: ParquetJob) -> Iterator[tuple[ColumnValue, tuple[str, int] | None, str]]:
        """Yield each row's image, its split and label (None if its split is left out), and the image's codec."""
        pages = ObjectFile(with_bucket(self.settings, job.stored.bucket), job.stored, _NO_LIMITS)
        for group, (codec, chunk) in enumerate(self._chunks(job)):
            labels = read_labels(job.file, self.columns, self.labels, group)
            try:
                for value, assigned in zip_longest(read_values(pages.bytes_at, chunk), labels, fillvalue=_NO_ROW):
                    if isinstance(value, str) or isinstance(assigned, str):
                        raise PageError("the numbers of labels and images differ")
                    yield value, assigned, codec
            except PageError as fault:
                raise _unreadable_error(job.stored, f"row group {group:,}: {fault}") from None

    def _chunks(self, job: ParquetJob) -> list[tuple[str, ColumnChunk]]:
        with open_table(job.file.part) as table:
            names = [table.schema.column(number).path for number in range(len(table.schema))]
            image = self.columns.image
            leaf = names.index(f"{image}.bytes" if f"{image}.bytes" in names else image)
            deepest = table.schema.column(leaf).max_definition_level
            groups = [table.metadata.row_group(number).column(leaf) for number in range(table.num_row_groups)]
        chunks = []
        for column in groups:
            if column.compression not in CODECS:
                raise _unreadable_error(job.stored, f"its pages are compressed with {column.compression}")
            starts = [column.data_page_offset]
            if column.has_dictionary_page and column.dictionary_page_offset:
                starts.append(column.dictionary_page_offset)
            chunk = ColumnChunk(
                min(starts), column.total_compressed_size, column.num_values, CODECS[column.compression], deepest
            )
            chunks.append((column.compression, chunk))
        return chunks


def _unreadable_error(stored: StoredObject, why: str) -> InputError:
    return InputError(
        f"images can't be read in place in {stored.uri}: {why}",
        next_step=f"set LARDER_SOURCE for {CREATED_BY['tree']}, which read any Parquet file",
    )
