"""The settings of programs that use loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field

from larder.dataset import DEFAULT
from larder.settings import DatasetSettings, WorkerSettings
from larder.store import OptionalBucketSettings

SECRETS = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})
"""The fields that no record may show."""


class LoaderSettings(WorkerSettings, DatasetSettings, OptionalBucketSettings):
    """Where the layouts of a data set lie, how they are read, and where records go.

    Fields are named as the loaders' arguments.
    """

    data_dir: Path = Field(
        Path("/mnt") / DEFAULT, alias="FOOD11_DATA_DIR",
        description="the tree: a folder for each split, and in it for each class; by default /mnt/<data set>",
    )  # fmt: skip
    mount_dir: Path = Field(
        Path(".larder/mount"), alias="LARDER_MOUNT_DIR",
        description="where the bucket is mounted, in a folder of its name",
    )  # fmt: skip
    webdataset_loader: Literal["larder", "webdataset"] = Field(
        "larder", alias="LARDER_WEBDATASET_LOADER",
        description="the shard reader: larder (an IterableDataset over fsspec and tarfile) or webdataset (the library)",
    )  # fmt: skip
    cache_dir: Path = Field(
        Path(".larder/cache"), alias="LARDER_CACHE_DIR",
        description="where LitData keeps chunks, in a folder of its own that it empties",
    )  # fmt: skip
    max_cache_size: ByteSize | None = Field(
        None, alias="LARDER_MAX_CACHE_SIZE",
        description="the most that LitData keeps there; empty leaves it to LitData: three quarters of the free space",
        json_schema_extra={"unit": "bytes, or 10GiB"},
    )  # fmt: skip
    max_pre_download: int | None = Field(
        None, alias="LARDER_MAX_PRE_DOWNLOAD", ge=2,  # with 1, LitData waits for good
        description="how many chunks each of LitData's workers fetches ahead; empty leaves it to LitData: up to 32, of "
        "3 GiB together, fewer in a small cache",
        json_schema_extra={"unit": "chunks"},
    )  # fmt: skip
    split: str = Field("training", alias="FOOD11_SPLIT", description="the split that is read")
    batch_size: int = Field(
        64, alias="LARDER_BATCH_SIZE", ge=1, le=65536, description="how many images one batch holds",
        json_schema_extra={"unit": "images"},
    )  # fmt: skip
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the shuffle; the same seed, the same order"
    )
    results: Path = Field(Path("results"), alias="LARDER_RESULTS", description="the folder that records go to")
