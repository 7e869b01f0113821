"""The settings of the load stage."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field

from larder.packing.settings import INPUT
from larder.settings import DataSettings
from larder.store import BucketSettings

VerifyRemote = Literal["list", "etag", "read"]


class LoadSettings(DataSettings, BucketSettings):
    """What to load, at what speed, and how to verify it."""

    task: Literal["load", "check", "reach"] = Field(
        "load",
        alias="LARDER_LOAD_TASK",
        description="load; check (report whether the store has all files, without sending any); reach (report whether "
        "the store can be written to, before there is anything to send)",
    )
    folder: str = Field(
        "tree",
        alias="LARDER_LOAD",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="what is loaded: tree, webdataset (shards) or litdata (chunks) of the dataset; or the name of any "
        "finished folder on the volume, which has the same name in the bucket",
    )
    input: str = Field("", alias="LARDER_INPUT", description=INPUT)
    verify_remote: VerifyRemote = Field(
        "etag",
        alias="LARDER_VERIFY_REMOTE",
        description="how each object in the store is checked: list (its size in the listing), etag (also its checksum, "
        "if the store gives one), read (its content is read and hashed)",
    )
    delete_extra: bool = Field(
        False,
        alias="LARDER_DELETE_EXTRA",
        description="delete objects in the folder that aren't in the new manifest, after it is written",
    )
    transfers: int = Field(
        32,
        alias="LARDER_TRANSFERS",
        ge=1,
        le=256,
        description="number of files uploaded at a time",
        json_schema_extra={"unit": "files"},
    )
    bandwidth: ByteSize = Field(
        ByteSize(0),
        alias="LARDER_BANDWIDTH",
        ge=0,
        description="upload bandwidth limit; 0 for none",
        json_schema_extra={"unit": "bytes/s, or 20MB"},
    )
