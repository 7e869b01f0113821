"""The settings of the s3 stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.distant.link import Link, parse_link, validated_bandwidth, validated_latency
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
    latency: Annotated[str, AfterValidator(validated_latency)] = Field(
        "",
        alias="LARDER_S3_LATENCY",
        description="round-trip time that s3-up adds to the store on this machine, as in 20ms: a proxy then has the "
        "store's address, and everything reads through it. s3-up without both settings removes it",
    )
    bandwidth: Annotated[str, AfterValidator(validated_bandwidth)] = Field(
        "",
        alias="LARDER_S3_BANDWIDTH",
        description="bandwidth to which s3-up limits the store on this machine, all connections together, as in "
        "200mbit; unlimited, or empty, is no limit",
    )

    @property
    def link(self) -> Link | None:
        """What `up` puts before the store; None without a link."""
        return parse_link(self.latency, self.bandwidth)
