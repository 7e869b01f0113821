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
        description="load; check (say whether the store has all of it, and send nothing); reach (say whether the store "
        "can be written, before there is anything to send)",
    )
    folder: str = Field(
        "tree",
        alias="LARDER_LOAD",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="what is loaded: the dataset's tree, webdataset (shards) or litdata (chunks), or any finished "
        "folder on the volume by its name, which it keeps in the bucket",
    )
    input: str = Field("", alias="LARDER_INPUT", description=INPUT)
    verify_remote: VerifyRemote = Field(
        "etag",
        alias="LARDER_VERIFY_REMOTE",
        description="how each object is checked in the store: list (there, with its size), etag (its checksum as well, "
        "where the store gives one), read (fetched and hashed)",
    )
    delete_extra: bool = Field(
        False,
        alias="LARDER_DELETE_EXTRA",
        description="delete the objects below the folder that the new manifest doesn't name, once it is in place",
    )
    transfers: int = Field(
        32,
        alias="LARDER_TRANSFERS",
        ge=1,
        le=256,
        description="how many files go up at a time",
        json_schema_extra={"unit": "files"},
    )
    bandwidth: ByteSize = Field(
        ByteSize(0),
        alias="LARDER_BANDWIDTH",
        ge=0,
        description="limit of the upload; 0 for none",
        json_schema_extra={"unit": "bytes/s, or 20MB"},
    )
