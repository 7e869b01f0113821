"""The settings of the s3 stage."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from larder.store import OptionalBucketSettings

S3Task = Literal["check", "bucket", "up", "down"]


class S3Settings(OptionalBucketSettings):
    """The task, and the embedded store's folder."""

    task: S3Task = Field(
        "check",
        alias="LARDER_S3_TASK",
        description="check (diagnose the store), bucket (make the bucket), up and down (start and stop the embedded "
        "server, which needs no container engine)",
    )
    home: Path = Field(
        Path(".larder/store"),
        alias="LARDER_STORE_DIR",
        description="folder in which the embedded server keeps its data, log and process id",
    )
