"""The settings of the shard stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field

from larder.fingerprint import MAX_PARTS, PART_BYTES
from larder.packing.settings import PackSettings

MAX_SHARD_BYTES = MAX_PARTS * PART_BYTES


def _validate_shard_bytes(size: ByteSize) -> ByteSize:
    if size > MAX_SHARD_BYTES:
        raise ValueError(
            f"must be at most {MAX_SHARD_BYTES / (1 << 30):g} GiB ({MAX_SHARD_BYTES} bytes): S3 takes {MAX_PARTS:,} "
            f"parts of an object, and larder's have {PART_BYTES >> 20} MiB"
        )
    return size


class ShardSettings(PackSettings):
    """The size limits of a shard."""

    shard_bytes: Annotated[ByteSize, AfterValidator(_validate_shard_bytes)] = Field(
        ByteSize(64 << 20),
        alias="LARDER_SHARD_BYTES",
        ge=10 << 10,
        description=f"maximum size of a shard, at most {MAX_SHARD_BYTES / (1 << 30):g} GiB",
        json_schema_extra={"unit": "bytes, or 64MiB"},
    )
    shard_samples: int = Field(
        0,
        alias="LARDER_SHARD_SAMPLES",
        ge=0,
        description="maximum number of samples in a shard; 0 for no limit",
        json_schema_extra={"unit": "samples"},
    )
