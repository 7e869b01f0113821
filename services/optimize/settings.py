"""The settings of the optimize stage."""

from __future__ import annotations

from pydantic import ByteSize, Field

from larder.packing.settings import PackSettings


class OptimizeSettings(PackSettings):
    """The size limits of a chunk."""

    chunk_bytes: ByteSize = Field(
        ByteSize(64 << 20),
        alias="LARDER_CHUNK_BYTES",
        ge=1 << 10,
        lt=1 << 32,
        description="maximum size of a chunk; LitData's offsets end at 4 GiB",
        json_schema_extra={"unit": "bytes, or 64MiB"},
    )
    chunk_samples: int = Field(
        0,
        alias="LARDER_CHUNK_SAMPLES",
        ge=0,
        description="maximum number of samples in a chunk; 0 for no limit",
        json_schema_extra={"unit": "samples"},
    )
