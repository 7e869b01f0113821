"""The settings of the s3 stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field

from larder.store import BucketSettings, a_bucket

Task = Literal["check", "bucket", "up", "down"]


class S3Settings(BucketSettings):
    """What is done with which store. The bucket may be missing: then `check` says so among its lines."""

    bucket: Annotated[str, AfterValidator(a_bucket)] = Field(
        "", validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )  # fmt: skip
    task: Task = Field(
        "check", alias="LARDER_S3_TASK",
        description="check (diagnose the store), bucket (make the bucket), up and down (start and stop the embedded "
        "server, which needs no container engine)",
    )  # fmt: skip
    home: Path = Field(
        Path(".larder/store"), alias="LARDER_STORE_DIR",
        description="where the embedded server keeps its data, its log and its process id",
    )  # fmt: skip
