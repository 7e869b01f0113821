"""Read Parquet files with a column of images and one of classes, as datasets on the Hugging Face Hub have them.

Images become files `<split>/<label>/<file>-<row>.<extension>`. The file `classes.json` lists the names of the classes
by label; the recipe `parquet` reads it. The folders are labels instead of names, since names may contain slashes and
the dataset defines their order. The split is that of the file, or of the row (larder.sources.parquet_splits).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from larder.sources.members import Member
from larder.sources.parquet_columns import ParquetColumns, ParquetPart
from larder.sources.parquet_labels import labels_in, row_error
from larder.sources.parquet_reader import choose_batch_rows, open_table, read_batches, require_pages

CLASSES_FILE = "classes.json"

_ROWS_AT_ONCE = 16
"""Number of rows read at a time. It is small, since these images and their page are held in memory."""
_MAX_PAGE_BYTES = 1 << 30
"""Maximum decompressed size of a page, since an image may be this large. Most pages have 1 MB, or a thousand images."""
_ENDINGS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


class ParquetSource:
    """The images of Parquet files, read in order, a few rows at a time.

    Args:
        name: Name of the source in messages.
        files: The files, with their splits.
        columns: The columns to read.
        labels: Label of each value in the column of classes.
        rows: Number of rows of each split.
    """

    parallel = False
    sizes_known = False
    action = "unpack"

    def __init__(
        self,
        name: str,
        files: Sequence[ParquetPart],
        columns: ParquetColumns,
        labels: Mapping[Any, int],
        rows: Mapping[str, int],
    ) -> None:
        self.name, self.files, self.columns, self.labels = name, files, columns, labels
        self.total: int | None = sum(rows.values()) + 1
        self.splits = sorted(rows)
        classes = columns.names if columns.names is not None else [str(value) for value in labels]
        self.classes = list(classes)
        self._classes = json.dumps({"classes": self.classes}, ensure_ascii=False, indent=2).encode() + b"\n"

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`. Each member holds its content."""
        yield Member(CLASSES_FILE, len(self._classes), self._classes)
        for file in self.files:
            for row, image, split, label in self._rows(file):
                path = image_path(file._replace(split=split), row, image, label, len(self.classes))
                yield Member(path, len(image), image)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        yield member.location

    def _rows(self, file: ParquetPart) -> Iterator[tuple[int, bytes, str, int]]:
        """Yield number, image, split and label of every row that isn't left out."""
        columns, row = self.columns, 0
        columns_to_read = [columns.image, *columns.describing]
        with open_table(file.part) as table:
            for group in range(table.num_row_groups):
                dictionary = require_pages(table, file.part, group, columns_to_read, _MAX_PAGE_BYTES)
                at_once = choose_batch_rows(dictionary, _ROWS_AT_ONCE)
                for batch in read_batches(table, file.part, group, at_once, columns_to_read):
                    images = _bytes_of(batch.column(columns.image))
                    for image, assigned in zip(images, labels_in(batch, file, columns, self.labels), strict=True):
                        if assigned is not None:
                            if not image.is_valid:
                                raise row_error(
                                    file.part, row, f"has no image in the column {columns.image!r}, or only its path"
                                )
                            yield row, image.as_py(), *assigned
                        row += 1


def image_path(file: ParquetPart, row: int, image: bytes, label: int, classes: int) -> str:
    """Return the path of a row's image in the source.

    Args:
        file: The Parquet file.
        row: Number of the row.
        image: Content of the image, which determines the extension.
        label: Label of the row.
        classes: Number of classes.
    """
    stem = file.part.name.removesuffix(".parquet").replace("/", "-")
    return f"{file.split}/{label:0{max(3, len(str(classes - 1)))}d}/{stem}-{row:07d}.{_ending(image)}"


def _bytes_of(column: pa.Array) -> pa.Array:
    """Return the images of a column; null for a row whose struct is null."""
    if pa.types.is_struct(column.type):
        return column.flatten()[column.type.get_field_index("bytes")]  # includes the struct's nulls
    return column


def _ending(image: bytes) -> str:
    """Return the usual extension for an image, by its first bytes. `transform` checks the format later."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return next((ending for start, ending in _ENDINGS if image.startswith(start)), "bin")
