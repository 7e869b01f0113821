"""LitData's index of a split's chunks: the one form that larder writes, and reads.

LitData takes from this file how samples are decoded. `pickle` is one of the ways, `data_spec` may name any module to be
imported, and names become paths: who could write to a bucket would run code wherever its chunks are read. So nothing
gives LitData an index but by `parse`.

The format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
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
"""How litdata 0.2.76 says that a sample is `{"image": …, "label": …}`."""
CHUNK_NAME = re.compile(r"chunk-0-(?:0|[1-9]\d{0,9})\.bin")
_HEAD_BYTES = 4
"""Of a chunk: the number of its samples; of each sample: where it begins, and of the last one, where it ends."""
_SAMPLE_BYTES = 4 + 4 + 4 + 8
"""The least that a sample takes: where it begins, the sizes of image and label, the label."""
_INDEX_BYTES, _CHUNK_LINE_BYTES = 4096, 256


class Extent(NamedTuple):
    """A chunk's length and the number of its samples."""

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


def most_bytes(chunks: int) -> int:
    """The most that the index of so many chunks may have."""
    return _INDEX_BYTES + _CHUNK_LINE_BYTES * chunks


def parse(data: bytes) -> dict[str, Extent]:
    """The chunks that an index names, in its order. Raises ValueError, which says where, for one of another form."""
    found: dict[str, Extent] = {}
    for chunk in parse_strictly(_Index, data).chunks:
        if chunk.filename in found:
            raise ValueError(f"chunks: {chunk.filename} comes twice")
        if not 0 < chunk.chunk_size <= (chunk.chunk_bytes - 2 * _HEAD_BYTES) // _SAMPLE_BYTES:
            raise ValueError(f"chunks: {chunk.filename} can't hold {chunk.chunk_size:,} samples")
        found[chunk.filename] = Extent(chunk.chunk_bytes, chunk.chunk_size)
    return found


def require_chunks(data: bytes, lengths: Mapping[str, int], samples: int) -> None:
    """Raise ValueError unless an index names these chunks, by name, with their lengths, and so many samples in them."""
    found = parse(data)
    for name in sorted(found.keys() | lengths.keys()):
        if name not in found or found[name].bytes != lengths.get(name):
            raise ValueError(f"chunks: it says something else of {name} than the manifest's index")
    if (counted := sum(chunk.samples for chunk in found.values())) != samples:
        raise ValueError(f"chunks: they hold {counted:,} samples, and the manifest says {samples:,}")
