"""The positions of images in Parquet files: every form that pyarrow writes, and damaged files."""

from __future__ import annotations

import io
import random
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.codecs import decompress
from larder.sources.parquet_pages import CODECS, ColumnChunk, ColumnValue, PageError, ReadRange, page_sizes, read_values

SOURCE = random.Random(3)
IMAGES = [SOURCE.randbytes(SOURCE.randint(1, 3000)) for _ in range(150)] + [b"again" * 50] * 50


def written(images: list[bytes | None], **options: object) -> bytes:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([None if image is None else {"bytes": image, "path": "x"} for image in images], kind)
    table, buffer = pa.table({"image": column, "label": list(range(len(images)))}), io.BytesIO()
    pq.write_table(table, buffer, row_group_size=70, **options)
    return buffer.getvalue()


def found_in(data: bytes) -> list[tuple[ColumnValue, str]]:
    table, found = pq.ParquetFile(io.BytesIO(data)), []
    for number in range(table.num_row_groups):
        column = table.metadata.row_group(number).column(0)
        starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
        chunk = ColumnChunk(
            min(starts),
            column.total_compressed_size,
            column.num_values,
            CODECS[column.compression],
            table.schema.column(0).max_definition_level,
        )
        read = read_values(lambda offset, length: data[offset : offset + length], chunk)
        found += [(value, column.compression) for value in read]
    return found


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_each_image_is_where_it_is_said_to_be(codec: str, dictionary: bool, version: str) -> None:
    data = written(
        list(IMAGES),
        compression=codec,
        use_dictionary=dictionary,
        data_page_version=version,
        data_page_size=20_000,
        dictionary_pagesize_limit=30_000,
        write_page_index=dictionary,
    )
    values = found_in(data)
    assert [value.data for value, _ in values] == IMAGES
    for value, name in values:
        page_codec = CODECS[name]
        if value.packed is None or page_codec is None:
            fetched = data[value.offset : value.offset + len(value.data)]
        else:
            page = decompress(page_codec, data[value.offset : value.offset + value.packed], 1 << 30)
            fetched = page[(value.at or 0) :][: len(value.data)]
        assert fetched == value.data


def test_a_row_without_an_image() -> None:
    with pytest.raises(PageError, match="no image"):
        found_in(written([*IMAGES[:9], None], use_dictionary=False))


def test_damaged_files_are_refused() -> None:
    data = written(list(IMAGES), data_page_size=20_000)
    source, refused = random.Random(7), 0
    for _ in range(300):
        corrupt = bytearray(data)
        corrupt[source.randrange(4, len(data) // 3)] ^= 1 << source.randrange(8)
        try:
            found_in(bytes(corrupt))
        except PageError:
            refused += 1
    assert refused > 0


@given(st.binary(max_size=300), st.sampled_from(["deflate", "gzip", "snappy"]))
def test_what_is_packed_wrongly(data: bytes, codec: Literal["deflate", "gzip", "snappy"]) -> None:
    with suppress(ValueError):
        assert len(decompress(codec, data, 1000)) <= 1000


@given(st.binary(max_size=3000).map(lambda data: data * 3))
def test_what_is_packed_is_unpacked(data: bytes) -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert decompress("deflate", deflate.compress(data) + deflate.flush(), len(data)) == data
    assert decompress("snappy", pa.compress(data, "snappy", asbytes=True), len(data)) == data
    assert decompress("gzip", pa.compress(data, "gzip", asbytes=True), len(data)) == data


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_every_page_is_found(tmp_path: Path, version: Any, compression: Any) -> None:
    table = pa.table({"a": [bytes([n % 256]) * n for n in range(3000)], "b": [str(n % 7) for n in range(3000)]})
    path = tmp_path / "it.parquet"
    pq.write_table(
        table,
        path,
        data_page_version=version,
        compression=compression,
        data_page_size=10_000,
        row_group_size=2000,
        use_dictionary=["b"],
        write_statistics=False,
        write_batch_size=10,
    )
    facts = pq.ParquetFile(path).metadata
    for group in range(facts.num_row_groups):
        for number in range(2):
            column = facts.row_group(group).column(number)
            start = column.dictionary_page_offset or column.data_page_offset
            sizes = list(page_sizes(_reading(path), start, column.total_compressed_size))
            assert 0 < column.total_uncompressed_size - sum(page.bytes for page in sizes) < 200 * len(sizes)
            assert [page.is_dictionary for page in sizes] == [number == 1] + [False] * (len(sizes) - 1)
            assert number == 1 or len(sizes) > 50


@pytest.mark.parametrize("data", [b"", b"\xff" * 99, b"\x15", b"\x1c" * 99, b"\x19\xfc" + b"\xff" * 9 + b"\x01", b"\0"])
def test_no_page(data: bytes) -> None:
    with pytest.raises(PageError):
        list(page_sizes(lambda offset, length: data[offset : offset + length], 0, 100))


def _reading(path: Path) -> ReadRange:
    data = path.read_bytes()
    return lambda offset, length: data[offset : offset + length]


PAGE = bytes([0x15, 6, 0x15, 8, 0x15, 8])
"""The header of a page of version 2, in Thrift's compact protocol: of 4 bytes, and of as many when it is unpacked."""


@pytest.mark.parametrize(
    ("header", "offset"),
    [(b"\x5c\x1c\0\0\0", 0), (b"\x5c\x15\x01\0\0", 0), (b"\x5c\x15\x02\x4c\0\0\0", 0), (b"\x55\x08\0", 0), (b"", -9)],
    ids=["count is a struct", "negative count", "levels are a struct", "no struct", "before the file"],
)
def test_fields_of_another_kind_are_refused(header: bytes, offset: int) -> None:
    data = PAGE + header + bytes(4)
    with pytest.raises(PageError):
        list(read_values(lambda at, length: data[at : at + length], ColumnChunk(offset, len(data), 3, None, 0)))
