"""The settings of the mount stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, ByteSize, Field, model_validator

from larder.store import BucketSettings, validated_bucket

CacheMode = Literal["off", "minimal", "writes", "full"]


class MountSettings(BucketSettings):
    """The bucket, its mount folder, and rclone's cache."""

    bucket: Annotated[str, AfterValidator(validated_bucket)] = Field(
        "",
        validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )
    mount_dir: Path = Field(
        Path(".larder/mount"),
        alias="LARDER_MOUNT_DIR",
        description="the folder in which the bucket is mounted, as a subfolder with the bucket's name",
    )
    vfs_cache: CacheMode = Field(
        "off",
        alias="LARDER_VFS_CACHE",
        description="what rclone caches on disk: off, minimal and writes cache nothing, since the mount is "
        "read-only; full caches what is read",
    )
    vfs_cache_max: ByteSize = Field(
        ByteSize(10 * 10**9),
        alias="LARDER_VFS_CACHE_MAX",
        description="maximum size of the cache with LARDER_VFS_CACHE=full; unmounting empties it",
        json_schema_extra={"unit": "bytes, or 20GB"},
    )
    dir_cache_seconds: int = Field(
        10,
        alias="LARDER_DIR_CACHE_SECONDS",
        ge=0,
        description="how long folder listings are cached; new objects appear after that time",
        json_schema_extra={"unit": "seconds"},
    )
    detach: bool = Field(False, alias="LARDER_DETACH", description="continue in the background once the mount answers")
    unmount: bool = Field(
        False,
        alias="LARDER_UNMOUNT",
        description="unmount, even if the mount is dead, and end the process that serves it",
    )

    @model_validator(mode="after")
    def _require_bucket(self) -> MountSettings:
        if not self.bucket and not self.unmount:
            raise ValueError("S3_BUCKET is not set (nor RCLONE_CONTAINER, nor --bucket): which bucket is mounted?")
        if self.bucket.startswith("."):
            raise ValueError("S3_BUCKET: a bucket's name can't start with a dot")
        return self

    def shape(self) -> dict[str, str | int]:
        """Return the settings that readers of a mount notice."""
        return {
            "S3_ENDPOINT_URL": self.s3_endpoint_url,
            "LARDER_VFS_CACHE": self.vfs_cache,
            "LARDER_VFS_CACHE_MAX": int(self.vfs_cache_max),
            "LARDER_DIR_CACHE_SECONDS": self.dir_cache_seconds,
        }
