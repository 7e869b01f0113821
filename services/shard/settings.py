"""The settings of the shard stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field

from larder.fingerprint import MOST_PARTS, PART_BYTES
from larder.packing.settings import PackSettings

MOST_BYTES = MOST_PARTS * PART_BYTES


def _that_fits_a_store(size: ByteSize) -> ByteSize:
    if size > MOST_BYTES:
        raise ValueError(
            f"must be at most {MOST_BYTES / (1 << 30):g} GiB ({MOST_BYTES} bytes): S3 takes {MOST_PARTS:,} parts of an "
            f"object, and larder's have {PART_BYTES >> 20} MiB"
        )
    return size


class ShardSettings(PackSettings):
    """How large a shard is."""

    shard_bytes: Annotated[ByteSize, AfterValidator(_that_fits_a_store)] = Field(
        ByteSize(64 << 20), alias="LARDER_SHARD_BYTES", ge=10 << 10,
        description=f"the most that a shard holds, at most {MOST_BYTES / (1 << 30):g} GiB",
        json_schema_extra={"unit": "bytes, or 64MiB"},
    )  # fmt: skip
    shard_samples: int = Field(
        0, alias="LARDER_SHARD_SAMPLES", ge=0, description="the most samples in a shard; 0 lets the bytes decide alone",
        json_schema_extra={"unit": "samples"},
    )  # fmt: skip
