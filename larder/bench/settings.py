"""Settings of programs that use loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field

from larder.dataset import DEFAULT
from larder.settings import DatasetSettings, WorkerSettings
from larder.store import OptionalBucketSettings

SECRETS = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})
"""Fields that records must not contain."""


def _validated_shards(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if separator and (scheme != "s3" or not rest.strip("/")):
        raise ValueError("must be s3://bucket/prefix, or a path")
    return uri.rstrip("/") if uri != "/" else uri


class LoaderSettings(WorkerSettings, DatasetSettings, OptionalBucketSettings):
    """Locations of a dataset's layouts, options for reading them, and the folder for records.

    Fields have the names of the loaders' arguments.
    """

    data_dir: Path = Field(
        Path("/mnt") / DEFAULT,
        alias="FOOD11_DATA_DIR",
        description="the tree, with a folder per split, and in it a folder per class; by default /mnt/<dataset>",
    )
    shards: Annotated[str, AfterValidator(_validated_shards)] = Field(
        "",
        alias="LARDER_SHARDS",
        description="a folder of tar shards, s3://bucket/prefix or a path, that needs no manifest: "
        "the arms that read tar shards read it in place of the dataset's",
    )
    mount_dir: Path = Field(
        Path(".larder/mount"),
        alias="LARDER_MOUNT_DIR",
        description="the folder in which the bucket is mounted, as a subfolder with the bucket's name",
    )
    webdataset_loader: Literal["larder", "webdataset"] = Field(
        "larder",
        alias="LARDER_WEBDATASET_LOADER",
        description="the shard reader: larder (an IterableDataset over fsspec and tarfile) or webdataset (the library)",
    )
    cache_dir: Path = Field(
        Path(".larder/cache"),
        alias="LARDER_CACHE_DIR",
        description="the folder of LitData's cache; LitData empties its own subfolder",
    )
    max_cache_size: ByteSize | None = Field(
        None,
        alias="LARDER_MAX_CACHE_SIZE",
        description="maximum size of LitData's cache; empty means three quarters of the free space",
        json_schema_extra={"unit": "bytes, or 10GiB"},
    )
    max_pre_download: int | None = Field(
        None,
        alias="LARDER_MAX_PRE_DOWNLOAD",
        ge=2,  # with 1, LitData waits forever
        description="number of chunks that each of LitData's workers prefetches; empty leaves it to LitData: "
        "up to 32, of 3 GiB together, fewer in a small cache",
        json_schema_extra={"unit": "chunks"},
    )
    split: str = Field("training", alias="FOOD11_SPLIT", description="the split that is read")
    batch_size: int = Field(
        64,
        alias="LARDER_BATCH_SIZE",
        ge=1,
        le=65536,
        description="images per batch",
        json_schema_extra={"unit": "images"},
    )
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the shuffle; the same seed gives the same order"
    )
    results: Path = Field(Path("results"), alias="LARDER_RESULTS", description="the folder for records")
