"""Parse and check LitData's `index.json`, in the one form that larder writes.

LitData's index says how samples are decoded. It may ask for `pickle`, `data_spec` may name any module to import, and
chunk names become paths: anyone with write access to a bucket could run code on every machine that reads its chunks.
Therefore LitData only gets indexes that have passed `parse`.

Format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from larder.contract import Count, parse_strictly

INDEX = "index.json"
SPEC = (
    r'[1, {"type": "builtins.dict", "context": "[\"image\", \"label\"]", "children_spec": '
    r'[{"type": null, "context": null, "children_spec": []}, {"type": null, "context": null, "children_spec": []}]}]'
)
"""The sample structure `{"image": …, "label": …}` as litdata 0.2.76 encodes it."""
CHUNK_NAME = re.compile(r"chunk-0-(?:0|[1-9]\d{0,9})\.bin")
_HEAD_BYTES = 4
"""Size of each number in a chunk's header: the count of samples, each sample's offset, and the end of the last one."""
_SAMPLE_BYTES = 4 + 4 + 4 + 8
"""Minimum size of a sample: its offset, the sizes of image and label, the label."""
_INDEX_BYTES, _CHUNK_LINE_BYTES = 4096, 256


class Extent(NamedTuple):
    """Length and number of samples of a chunk."""

    bytes: int
    samples: int


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class _Chunk(_Strict):
    chunk_bytes: Count
    chunk_size: Count
    dim: None
    filename: Annotated[str, Field(pattern=f"^{CHUNK_NAME.pattern}$")]


class _Types(_Strict):
    image: Literal["bytes"]
    label: Literal["int"]


class _Config(_Strict):
    chunk_bytes: Count
    chunk_size: Count | None
    compression: None
    compression_batch_size: None
    compression_level: None
    data_format: tuple[Literal["bytes"], Literal["int"]]
    data_spec: Literal[SPEC]  # type: ignore[valid-type]
    encryption: None
    ipc_compression: None
    item_loader: Literal["PyTreeLoader"]
    types: _Types


class _Index(_Strict):
    chunks: list[_Chunk]
    config: _Config
    updated_at: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


def max_index_bytes(chunks: int) -> int:
    """Return the maximum size in bytes of an index of `chunks` chunks."""
    return _INDEX_BYTES + _CHUNK_LINE_BYTES * chunks


def parse(data: bytes) -> dict[str, Extent]:
    """Parse LitData's index.

    Args:
        data: Content of `index.json`.

    Returns:
        Length and number of samples of each chunk, by file name, in the order of the index.

    Raises:
        ValueError: If the index has another form than larder writes. The message says where.
    """
    extents: dict[str, Extent] = {}
    for chunk in parse_strictly(_Index, data).chunks:
        if chunk.filename in extents:
            raise ValueError(f"chunks: {chunk.filename} is repeated")
        if not 0 < chunk.chunk_size <= (chunk.chunk_bytes - 2 * _HEAD_BYTES) // _SAMPLE_BYTES:
            raise ValueError(f"chunks: {chunk.filename} can't hold {chunk.chunk_size:,} samples")
        extents[chunk.filename] = Extent(chunk.chunk_bytes, chunk.chunk_size)
    return extents


def require_chunks(data: bytes, lengths: Mapping[str, int], samples: int) -> None:
    """Raise ValueError unless LitData's index agrees with an artifact's manifest.

    Args:
        data: Content of `index.json`.
        lengths: Length in bytes of each chunk, by file name.
        samples: Total number of samples.
    """
    extents = parse(data)
    for name in sorted(extents.keys() | lengths.keys()):
        if name not in extents or extents[name].bytes != lengths.get(name):
            raise ValueError(f"chunks: {name} has another length in the manifest's index")
    if (counted := sum(chunk.samples for chunk in extents.values())) != samples:
        raise ValueError(f"chunks: they hold {counted:,} samples, and the manifest says {samples:,}")
