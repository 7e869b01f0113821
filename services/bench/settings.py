"""The settings of the bench stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field

from larder.settings import WorkerSettings
from larder.store import OptionalBucketSettings
from services.bench import arms


def _known_arm(name: str) -> str:
    known = arms.names()
    if name not in known:
        raise ValueError(f"there is no such arm; must be one of: {', '.join(known)}")
    return name


def _about_arms() -> str:
    return "; ".join(f"{name} ({arms.about(name)})" for name in arms.names())


SECRETS = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})
"""The fields that no record may show."""


class BenchSettings(WorkerSettings, OptionalBucketSettings):
    """What is measured, on which data, and for how long."""

    arm: Annotated[str, AfterValidator(_known_arm)] = Field(
        "imagefolder_local", alias="LARDER_ARM", description=f"what is measured: {_about_arms()}"
    )
    data_dir: Path = Field(
        Path("/mnt/Food-11"), alias="FOOD11_DATA_DIR", description="the tree that `make etl-local` made"
    )
    mount_dir: Path = Field(
        Path(".larder/mount"), alias="LARDER_MOUNT_DIR",
        description="where `make mount` mounts the bucket, in a folder of the bucket's name",
    )  # fmt: skip
    webdataset_loader: Literal["larder", "webdataset"] = Field(
        "larder", alias="LARDER_WEBDATASET_LOADER",
        description="who reads shards: larder (an IterableDataset over fsspec and tarfile), webdataset (that library)",
    )  # fmt: skip
    cache_dir: Path = Field(
        Path(".larder/cache"), alias="LARDER_CACHE_DIR",
        description="where litdata_streaming keeps chunks, in a folder of its own that it empties",
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
    task: Literal["bench", "train"] = Field(
        "bench", alias="LARDER_BENCH_TASK",
        description="bench (measure the arm alone), train (train a small network through it: `make train`)",
    )  # fmt: skip
    epochs: int = Field(
        3, alias="LARDER_EPOCHS", ge=1, description="how long train trains", json_schema_extra={"unit": "epochs"}
    )
    held_out: str = Field("validation", alias="LARDER_HELD_OUT", description="the split that train scores on")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", alias="LARDER_DEVICE", description="where train computes; auto takes CUDA where torch sees it"
    )
    split: str = Field("training", alias="FOOD11_SPLIT", description="the split that is read")
    batch_size: int = Field(
        64, alias="LARDER_BATCH_SIZE", ge=1, le=65536, description="how many images one batch holds",
        json_schema_extra={"unit": "images"},
    )  # fmt: skip
    warmup_batches: int = Field(
        5, alias="LARDER_WARMUP_BATCHES", ge=0,
        description="how much is read before measuring starts, in a pass of its own that no figure counts",
        json_schema_extra={"unit": "batches"},
    )  # fmt: skip
    batches: int = Field(
        0, alias="LARDER_BENCH_BATCHES", ge=0, description="how much is measured; 0 is one whole epoch",
        json_schema_extra={"unit": "batches"},
    )  # fmt: skip
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the shuffle; the same seed, the same order"
    )
    results: Path = Field(Path("results"), alias="LARDER_RESULTS", description="the folder that records go to")
    revision: str = Field(
        "", alias="LARDER_REVISION",
        description="the revision of this code, for the record; by default what git says of the checkout",
    )  # fmt: skip
