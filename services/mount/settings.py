"""The settings of the mount stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, ByteSize, Field, model_validator

from larder.store import BucketSettings, a_bucket

CacheMode = Literal["off", "minimal", "writes", "full"]


class MountSettings(BucketSettings):
    """Which bucket appears where, and what is kept of it."""

    bucket: Annotated[str, AfterValidator(a_bucket)] = Field(
        "", validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )  # fmt: skip
    mount_dir: Path = Field(
        Path(".larder/mount"), alias="LARDER_MOUNT_DIR",
        description="the folder in which the bucket appears, as a subfolder of the bucket's name",
    )  # fmt: skip
    vfs_cache: CacheMode = Field(
        "off", alias="LARDER_VFS_CACHE",
        description="what rclone keeps on disk of what is read: off, minimal, writes (all three nothing, as the mount "
        "is read-only), full",
    )  # fmt: skip
    vfs_cache_max: ByteSize = Field(
        ByteSize(10 * 10**9), alias="LARDER_VFS_CACHE_MAX",
        description="how much LARDER_VFS_CACHE=full keeps; it lies in LARDER_MOUNT_DIR until the bucket is unmounted",
        json_schema_extra={"unit": "bytes, or 20GB"},
    )  # fmt: skip
    dir_cache_seconds: int = Field(
        10, alias="LARDER_DIR_CACHE_SECONDS", ge=0,
        description="how long a listing of a folder is kept: new objects appear after that time",
        json_schema_extra={"unit": "seconds"},
    )  # fmt: skip
    detach: bool = Field(False, alias="LARDER_DETACH", description="go on in the background once the mount answers")
    unmount: bool = Field(
        False, alias="LARDER_UNMOUNT", description="take the mount away, also a dead one, and end who serves it"
    )

    @model_validator(mode="after")
    def _which_bucket(self) -> MountSettings:
        if not self.bucket and not self.unmount:
            raise ValueError("S3_BUCKET is not set (nor RCLONE_CONTAINER, nor --bucket): which bucket is mounted?")
        if self.bucket.startswith("."):
            raise ValueError("S3_BUCKET: no bucket's name starts with a dot")
        return self

    def shape(self) -> dict[str, str | int]:
        """What makes one mount different from another for those who read it."""
        return {
            "S3_ENDPOINT_URL": self.s3_endpoint_url, "LARDER_VFS_CACHE": self.vfs_cache,
            "LARDER_VFS_CACHE_MAX": int(self.vfs_cache_max), "LARDER_DIR_CACHE_SECONDS": self.dir_cache_seconds,
        }  # fmt: skip
