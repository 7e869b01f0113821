"""Define the settings that packing stages share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.engines.settings import EngineSettings
from larder.settings import DataSettings
from larder.store import StoreSettings, validated_prefix


def _validated_input(uri: str) -> str:
    if uri.startswith("s3:") and not re.fullmatch(r"s3://[A-Za-z0-9._-]+(/[^/]+)+/?", uri):
        raise ValueError("must name a folder in a bucket, as in s3://bucket/photos, with a prefix or without")
    if uri.startswith("s3:"):
        validated_prefix(uri.removeprefix("s3://").partition("/")[2])
    return uri.rstrip("/")


def _validated_destination(uri: str) -> str:
    if uri and not uri.startswith("s3://"):
        raise ValueError("must be empty, for the volume, or begin with s3://")
    return _validated_input(uri)


INPUT = (
    "the tree: its folder, the volume that holds it, or s3://bucket/[prefix/]name as `load` or `index` leaves it; "
    "empty is the stage's own volume"
)
"""Description of LARDER_INPUT."""


class PackSettings(DataSettings, EngineSettings, StoreSettings):
    """Settings of packing stages: input, destination and order of the samples."""

    input: Annotated[str, AfterValidator(_validated_input)] = Field(
        "",
        alias="LARDER_INPUT",
        description=INPUT,
    )
    dest: Annotated[str, AfterValidator(_validated_destination)] = Field(
        "",
        alias="LARDER_DEST",
        description="where the result is written: empty means the volume; s3://bucket/[prefix/]name streams "
        "it to the store, without a local copy",
    )
    shuffle: Literal["seed", "none"] = Field(
        "seed",
        alias="LARDER_SHUFFLE",
        description="the order of the samples: seed (shuffled, the same for the same LARDER_SEED), none (by path)",
    )
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the shuffle; the same seed gives the same order"
    )

    @property
    def processes(self) -> int:
        """Number of workers. By default there is one more with LARDER_DEST, since workers then wait for the store."""
        return self.workers + bool(self.dest and "workers" not in self.model_fields_set)
