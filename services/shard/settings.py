"""The settings of the shard stage."""

from __future__ import annotations

from pydantic import ByteSize, Field

from larder.packing import PackSettings


class ShardSettings(PackSettings):
    """How large a shard is."""

    shard_bytes: ByteSize = Field(
        ByteSize(64 << 20), alias="LARDER_SHARD_BYTES", ge=10 << 10, le=1 << 40,
        description="the most that a shard holds", json_schema_extra={"unit": "bytes, or 64MiB"},
    )  # fmt: skip
    shard_samples: int = Field(
        0, alias="LARDER_SHARD_SAMPLES", ge=0, description="the most samples in a shard; 0 lets the bytes decide alone",
        json_schema_extra={"unit": "samples"},
    )  # fmt: skip
