"""The settings of the optimize stage."""

from __future__ import annotations

from pydantic import ByteSize, Field

from larder.packing.settings import PackSettings


class OptimizeSettings(PackSettings):
    """How large a chunk is."""

    chunk_bytes: ByteSize = Field(
        ByteSize(64 << 20), alias="LARDER_CHUNK_BYTES", ge=1 << 10, lt=1 << 32,
        description="the most that a chunk holds; LitData's offsets end at 4 GiB",
        json_schema_extra={"unit": "bytes, or 64MiB"},
    )  # fmt: skip
    chunk_samples: int = Field(
        0, alias="LARDER_CHUNK_SAMPLES", ge=0, description="the most samples in a chunk; 0 lets the bytes decide alone",
        json_schema_extra={"unit": "samples"},
    )  # fmt: skip
