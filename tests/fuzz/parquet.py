"""Parquet files with their card, as extract and index read them."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from larder.progress import NullReporter
from larder.sources.members import safe_path
from larder.sources.parquet import ParquetSource
from larder.store import BucketSettings
from services.extract.open_sources import open_local_folder
from services.extract.settings import ExtractSettings
from services.index import archives
from services.index.listing import StoredObject
from services.index.parquet import ParquetChecker, ParquetJob
from tests.fuzz.mutations import PIECES, corrupt
from tests.parquet import IMAGE, features, picture

_MAX_ROWS = 10_000
_SEEDS = 300
"""Sound files: the same in every run of the target."""
_NAMES = (
    "data/train-00000-of-00001.parquet",
    "data/test-00000-of-00001.parquet",
    "train.parquet",
    "a/val.parquet",
    "b/1.parquet",
    "odd-00000-of-00002.parquet",
)
_LABELS: Sequence[tuple[pa.DataType, Sequence[Any]]] = (
    (pa.int64(), [0, 1]),
    (pa.int64(), [0, 1]),
    (pa.int8(), [0, -1]),
    (pa.uint64(), [1, (1 << 64) - 1]),
    (pa.string(), ["cat", "dog"]),
    (pa.large_string(), ["é", ""]),
    (pa.bool_(), [True, False]),
    (pa.dictionary(pa.int32(), pa.string()), ["cat", "a/b"]),
    (pa.float64(), [0.5, 1.0]),
    (pa.int64(), [None, 1]),
    (pa.list_(pa.int64()), [[0], [1]]),
    (pa.string_view(), ["cat", "dog"]),
)
_CARD = """---
laughs: [&a [x, x, x, x, x, x, x, x], &b [*a, *a, *a, *a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b, *b, *b],
  &d [*c, *c, *c, *c, *c, *c, *c, *c], &e [*d, *d, *d, *d, *d, *d, *d, *d], &f [*e, *e, *e, *e, *e, *e, *e, *e],
  &g [*f, *f, *f, *f, *f, *f, *f, *f], &h [*g, *g, *g, *g, *g, *g, *g, *g], &i [*h, *h, *h, *h, *h, *h, *h, *h]]
configs:
- config_name: {default}
  default: {true}
  data_files:
  - split: {train}
    path: {data/train-*}
  - split: {test}
    path: ["data/test-*", {./a/**}]
- config_name: {other}
  data_files: {{ {val}: {b/1.parquet} }}
dataset_info:
- config_name: {default}
  features:
  - {{name: image, dtype: image}}
  - name: {label}
    dtype: {{class_label: {{names: {{ {'0'}: {cat}, '1': {dog} }} }} }}
---
# Photos
"""
_ODD_VALUES = (
    "*i", "*a", "0x" + "f" * 5000, "1e999", ".nan", "2001-01-01", "~", "[]", "{}", "x" * 70_000, '"\\e[2J"',
    "!!set {x}", "*.parquet", "'[[]'", "'*' ", "'**/**/**/**/**/**/**/**/**/**/**x'", "..", "a/b", "'\\u202e'", "yes",
    "&z [*z]", "!!omap [a: 1]", "'" + "*?" * 200 + "'", "'" + "[a-" * 200 + "'", "? x", "1:1:1", "0o17", "'0' ",
    "!!binary eA==", "-1",
)  # fmt: skip
_PIECES_OF_CARDS = (
    *PIECES, b"&a [*a]", b"&a ", b"*a", b"!!python/object/apply:os.system ['x']", b"!!binary x", b"<<: *a", b"? ",
    b": ", b"- ", b"~", b"*", b"[", b"**/*", b"a: &b [x, x, x]\nc: &d [*b, *b, *b]\ne: [*d, *d]\n", b"1:" * 99, b"---",
    b"0x" + b"f" * 5000, b"%YAML 9", b"\t", b"\xe2\x80\xae", b"\x1b[2J", b"../..", b"/", b"true", b"{{" * 300,
)  # fmt: skip


def fuzz(chance: random.Random, folder: Path) -> None:
    """Damage one file or the card of a dataset, and read all of it."""
    names = chance.sample(_NAMES, chance.choice([1, 1, 2, 3]))
    for name in names:
        path = folder / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = _sound(chance.randrange(_SEEDS))
        path.write_bytes(_damaged(data, chance) if chance.random() < 0.8 else data)
    if chance.random() < 0.4:
        (folder / "set" / "README.md").write_bytes(_spoilt_card(chance))
    columns = {"image_column": chance.choice([*[""] * 20, "image", "other"])}
    columns["label_column"] = chance.choice([*[""] * 20, "label"])
    settings = ExtractSettings.model_validate(
        {"source": str(folder / "set"), "max_files": _MAX_ROWS, **columns}, by_name=True
    )
    source = open_local_folder(folder / "set", "set", settings, NullReporter()).source
    if isinstance(source, ParquetSource):
        for read in chance.sample((_extract, _index), 2):
            read(source)


def _extract(source: ParquetSource) -> None:
    assert sum(file.rows for file in source.files) <= _MAX_ROWS
    for member in source.scan():
        assert safe_path(member.path) == member.path
        assert sum(map(len, source.read(member))) == member.bytes


def _index(source: ParquetSource) -> None:
    look = ParquetChecker(_store(), "header", source.columns, source.labels, len(source.classes))
    with patch.object(archives, "open_prefix", lambda *_: _Files()):
        for file in source.files:
            size = file.part.path.stat().st_size
            looked = look(ParquetJob(file, StoredObject(file.part.name, size, "", str(file.part.path), "bucket")))
            assert all(image.bytes <= size * 1000 for image in looked.images)


class _Files:
    """Files of this machine as objects of a bucket."""

    def read_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
        with open(key, "rb") as file:
            file.seek(start)
            return file.read(length)


@cache
def _store() -> BucketSettings:
    return BucketSettings.model_validate({"s3_endpoint_url": "http://127.0.0.1:9", "bucket": "bucket"}, by_name=True)


@cache
def _sound(seed: int) -> bytes:
    """Return a valid file of pyarrow, with the metadata of `datasets` or without."""
    chance, buffer = random.Random(seed), io.BytesIO()
    kind, labels = _LABELS[0] if chance.random() < 0.5 else chance.choice(_LABELS)
    count = chance.choice([0, 1, 7, 40])
    odd = (b"", b"x" * 99)
    rows = [chance.choice(odd) if chance.random() < 0.1 else picture(chance.randrange(3)) for _ in range(count)]
    in_struct = pa.array([{"bytes": row, "path": "a.jpg"} for row in rows], IMAGE)
    in_list = pa.array([[row] for row in rows], pa.list_(pa.binary()))
    plain = pa.array(rows, chance.choice([pa.binary(), pa.large_binary(), pa.binary_view()]))
    images = chance.choice([*[in_struct] * 12, *[plain] * 6, in_list])
    label = pa.array([chance.choice(labels) for _ in range(count)], kind)
    notes = features(chance.choice([*[["cat", "dog"]] * 9, ["cat", "Cat"], []])) if chance.random() < 0.6 else None
    table = pa.table({"image": images, chance.choice(["label", "label", "class"]): label})
    table = table.replace_schema_metadata(notes)
    pq.write_table(
        table,
        buffer,
        row_group_size=chance.choice([3, 1000]),
        use_dictionary=chance.choice([True, False]),
        compression=chance.choice(["none", "none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        data_page_version=chance.choice(["1.0", "2.0"]),
        data_page_size=chance.choice([100, 1 << 20]),
        write_page_checksum=chance.random() < 0.1,
        write_statistics=chance.choice([True, False]),
        store_schema=chance.random() < 0.2,
    )
    return buffer.getvalue()


def _damaged(data: bytes, chance: random.Random) -> bytes:
    """Return the file with some bytes replaced, usually in its pages. Readers notice moved pages at once."""
    if chance.random() < 0.1:
        return corrupt(data, chance)
    mutated = bytearray(data)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(chance.choice([1, 1, 2, 5])):
        first, last = chance.choice(
            [(4, footer), (4, footer), (4, 60), (footer - 200, footer), (footer, len(data) - 8)]
        )
        at, length = chance.randrange(max(first, 4), max(last, 5)), chance.choice([1, 1, 1, 2, 4, 8])
        put = chance.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\x01", chance.randbytes(1)]) * length
        mutated[at : at + length] = put[: len(mutated) - at]
    return bytes(mutated)


def _spoilt_card(chance: random.Random) -> bytes:
    def value(found: re.Match[str]) -> str:
        return chance.choice(_ODD_VALUES) if chance.random() < 0.1 else found[1]

    card = re.sub(r"(?<!{){([^{} ]+)}(?!})", value, _CARD).replace("{{", "{").replace("}}", "}").encode()
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        at = chance.randint(0, len(card))
        card = card[:at] + chance.choice(_PIECES_OF_CARDS) + card[at:]
    return corrupt(card, chance) if chance.random() < 0.2 else card
