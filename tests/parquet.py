"""Parquet files as `datasets` writes them: images, and metadata of columns."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int, kind: str = "JPEG") -> bytes:
    """Return a small image, a different one for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20 % 256, number % 256, 9)).save(buffer, kind)
    return buffer.getvalue()


def features(names: Sequence[str]) -> dict[bytes, bytes]:
    """Return the metadata of `datasets` in a schema: the JSON of release 5.2 for Image and ClassLabel."""
    described = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": described}}).encode()}


def packed(
    rows: Sequence[tuple[bytes, int | str]],
    names: Sequence[str] = ("cat", "dog"),
    group: int = 3,
    splits: Sequence[str | None] = (),
    **options: Any,
) -> bytes:
    """Return a Parquet file of images and labels; without metadata if there are no names."""
    images = pa.array([{"bytes": data, "path": None} for data, _ in rows], IMAGE)
    table = pa.table({"image": images, "label": pa.array([label for _, label in rows])})
    if splits:
        table = table.append_column("split", [list(splits)])
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(features(names) if names else None), buffer, row_group_size=group, **options
    )
    return buffer.getvalue()
