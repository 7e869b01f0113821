"""The settings that packing stages share."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.engines.settings import EngineSettings
from larder.settings import DataSettings
from larder.store import StoreSettings, a_prefix


def _a_place(uri: str) -> str:
    if uri.startswith("s3:") and not re.fullmatch(r"s3://[A-Za-z0-9._-]+(/[^/]+)+/?", uri):
        raise ValueError("must name a folder in a bucket, as in s3://bucket/photos, with a prefix or without")
    if uri.startswith("s3:"):
        a_prefix(uri.removeprefix("s3://").partition("/")[2])
    return uri.rstrip("/")


def _a_bucket_place(uri: str) -> str:
    if uri and not uri.startswith("s3://"):
        raise ValueError("must be empty, for the volume, or begin with s3://")
    return _a_place(uri)


INPUT = (
    "the tree: its folder, the volume that holds it, or s3://bucket/[prefix/]name as `load` or `index` leaves it; "
    "empty is the stage's own volume"
)
"""What LARDER_INPUT means."""


class PackSettings(DataSettings, EngineSettings, StoreSettings):
    """From where, to where, and in which order."""

    input: Annotated[str, AfterValidator(_a_place)] = Field(
        "", alias="LARDER_INPUT",
        description=INPUT,
    )  # fmt: skip
    dest: Annotated[str, AfterValidator(_a_bucket_place)] = Field(
        "", alias="LARDER_DEST",
        description="where the result goes: empty is the volume; s3://bucket/[prefix/]name streams it to the store, "
        "without a copy here",
    )  # fmt: skip
    shuffle: Literal["seed", "none"] = Field(
        "seed", alias="LARDER_SHUFFLE",
        description="the order of the samples: seed (shuffled, the same for the same LARDER_SEED), none (by path)",
    )  # fmt: skip
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the shuffle; the same seed, the same order"
    )

    @property
    def processes(self) -> int:
        """How many workers there are: where they send to a store, each waits for that for a part of its time."""
        return self.workers + bool(self.dest and "workers" not in self.model_fields_set)
