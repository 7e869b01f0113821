"""The settings of the verify stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from larder.engines.settings import EngineSettings
from larder.settings import VolumeSettings
from larder.store import OptionalBucketSettings


def _parse_all(number: object) -> object:
    return 0 if number == "all" else number


class VerifySettings(VolumeSettings, EngineSettings, OptionalBucketSettings):
    """Where the artifacts are, and how many samples are read."""

    wds: Path = Field(
        Path("/wds"),
        alias="LARDER_WDS_DIR",
        description="where the volume of shards is mounted",
    )
    lit: Path = Field(
        Path("/lit"),
        alias="LARDER_LIT_DIR",
        description="where the volume of chunks is mounted",
    )
    samples: Annotated[int, BeforeValidator(_parse_all)] = Field(
        1000,
        alias="LARDER_VERIFY_SAMPLES",
        ge=0,
        description="number of samples to read and hash, spread over splits and classes; all or 0 reads every sample",
        json_schema_extra={"unit": "samples, or all"},
    )
    seed: int = Field(0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed for choosing samples")
    source: str = Field(
        "",
        alias="LARDER_SOURCE",
        description="what the data were extracted from, if it still exists: an archive or folder on this machine, "
        "several archives (as for extract), or s3://bucket/prefix",
    )

    @property
    def source_path(self) -> Path | None:
        """The source as a local path, or None if it isn't one."""
        path = Path(os.path.expanduser(self.source))
        return path if self.source and path.exists() else None
