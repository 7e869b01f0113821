"""The settings of the verify stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from larder.engines.settings import EngineSettings
from larder.settings import VolumeSettings
from larder.store import OptionalBucketSettings


def _all_is_zero(number: object) -> object:
    return 0 if number == "all" else number


class VerifySettings(VolumeSettings, EngineSettings, OptionalBucketSettings):
    """Where the chain's links lie, and how much of them is read."""

    wds: Path = Field(
        Path("/wds"), alias="LARDER_WDS_DIR",
        description="where the volume of shards is mounted",
    )  # fmt: skip
    lit: Path = Field(
        Path("/lit"), alias="LARDER_LIT_DIR",
        description="where the volume of chunks is mounted",
    )  # fmt: skip
    samples: Annotated[int, BeforeValidator(_all_is_zero)] = Field(
        1000, alias="LARDER_VERIFY_SAMPLES", ge=0,
        description="how many samples are read and hashed, of every split and class its share; all, or 0, is every one",
        json_schema_extra={"unit": "samples, or all"},
    )  # fmt: skip
    seed: int = Field(0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of which samples are chosen")
    source: str = Field(
        "", alias="LARDER_SOURCE",
        description="what the data were extracted from, where it is still there: an archive or folder on this machine, "
        "several archives (as for extract), or s3://bucket/prefix",
    )  # fmt: skip

    @property
    def source_path(self) -> Path | None:
        """The source, when it is something on this machine."""
        path = Path(os.path.expanduser(self.source))
        return path if self.source and path.exists() else None
