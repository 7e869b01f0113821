"""Open untrusted Parquet files: limit the size of pages, and raise errors where pyarrow would end the process.

pyarrow reads the pages; larder.sources.parquet_pages looks at their sizes first.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from larder.sources.members import BadSourceError, damaged_source_error
from larder.sources.parquet_pages import ReadRange, page_sizes
from larder.sources.parts import SourcePart

LABELS_AT_ONCE = 1 << 16
"""Number of rows of a column of labels, or splits, that are read at a time."""
MAX_LABELS_BYTES = 64 << 20
"""Maximum decompressed size of a page of labels, or splits."""
_MAX_ROWS_BYTES = 256 << 20
"""Maximum size of the rows read at a time, if each repeats the whole dictionary."""
_MAX_SCHEMA_BYTES = 16 << 20
_MAX_DESCRIBABLE = 1 << 16
_describable: set[bytes] = set()
"""Digests of up to 65,536 footers that this process has tried, about 6 MB."""


@contextmanager
def open_table(part: SourcePart) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for reading page by page.

    Raises:
        BadSourceError: If it isn't a valid Parquet file.
    """
    with map_parquet_errors(part, "its footer"):
        table = pq.ParquetFile(
            part.path if part.open is None else part.open(),
            pre_buffer=False,
            buffer_size=1 << 20,
            thrift_string_size_limit=_MAX_SCHEMA_BYTES,
            thrift_container_size_limit=1 << 20,
            page_checksum_verification=True,
        )
        table.schema_arrow  # noqa: B018  (fails here if it is invalid)
    with table:
        _require_describable(table.metadata, part)
        yield table


def _require_describable(footer: pq.FileMetaData, part: SourcePart) -> None:
    """Raise BadSourceError for a footer with a column that pyarrow can't describe.

    For such a column, pyarrow 26 doesn't raise an error but ends the process. So a child process tries it first. A file
    is opened several times, and forking a large process takes long, so the same footer is tried once.
    """
    digest = hashlib.sha256(pickle.dumps(footer)).digest()
    if digest in _describable:
        return
    child = os.fork()
    if child == 0:
        _describe_and_end(footer)
    if os.waitpid(child, 0)[1] != 0:
        raise damaged_source_error(part.name, "its footer: a column can't be described")
    if len(_describable) >= _MAX_DESCRIBABLE:
        _describable.clear()
    _describable.add(digest)


def _describe_and_end(footer: pq.FileMetaData) -> NoReturn:
    """Exit with 0 if every column of every row group can be described. Discard messages of the C++ library."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for number in range(group.num_columns):
                group.column(number)
        os._exit(0)
    finally:
        os._exit(1)


def require_pages(table: pq.ParquetFile, part: SourcePart, group: int, columns: Sequence[str], max_bytes: int) -> int:
    """Check the size of the pages of some columns of a row group.

    Args:
        table: The open file.
        part: The file, for messages.
        group: Number of the row group.
        columns: Names of the columns.
        max_bytes: Maximum decompressed size of a page.

    Returns:
        Size of the largest dictionary in bytes.

    Raises:
        BadSourceError: If a page decompresses to more than `max_bytes`.
    """
    largest = 0
    with map_parquet_errors(part, f"row group {group:,}"), _reading(part) as read:
        row_group = table.metadata.row_group(group)
        if row_group.num_rows == 0:  # has no pages, and pyarrow reads none
            return 0
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if column.path_in_schema.partition(".")[0] not in columns:
                continue
            starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
            for page in page_sizes(read, min(starts), column.total_compressed_size):
                if page.bytes > max_bytes:
                    raise BadSourceError(
                        f"{part.name}: row group {group:,} has a page of {page.bytes:,} bytes in the column "
                        f"{column.path_in_schema!r}; at most {max_bytes:,} are read at once",
                        next_step="write the file with smaller pages or row groups, then run again",
                    )
                largest = max(largest, page.bytes if page.is_dictionary else 0)
    return largest


@contextmanager
def _reading(part: SourcePart) -> Iterator[ReadRange]:
    """Open a file and yield a function that reads byte ranges of it."""
    with part.path.open("rb") if part.open is None else part.open() as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

        yield read


def choose_batch_rows(dictionary_bytes: int, max_rows: int) -> int:
    """Return how many rows to read at a time, if each may repeat a whole dictionary of this size."""
    return max(1, min(max_rows, _MAX_ROWS_BYTES // max(dictionary_bytes, 1)))


def read_batches(
    table: pq.ParquetFile, part: SourcePart, group: int | None, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a row group (or of all if None), `rows` rows at a time."""
    where = "a row group" if group is None else f"row group {group:,}"
    groups = None if group is None else [group]
    with map_parquet_errors(part, where):
        batches = table.iter_batches(batch_size=rows, row_groups=groups, columns=list(columns), use_threads=False)
    while True:
        with map_parquet_errors(part, where):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def decode_dictionary(column: pa.Array) -> pa.Array:
    """Return the values of a column, also of one with a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


@contextmanager
def map_parquet_errors(part: SourcePart, what: str) -> Iterator[None]:
    """Translate errors of a block that reads `what` of a Parquet file. Errors of the system pass unchanged."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise damaged_source_error(part.name, f"{what} can't be read ({' '.join(str(fault).split())[:200]})") from None
