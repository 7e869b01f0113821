"""Hugging Face datasets over Parquet files in the bucket: its streaming dataset under PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.arms import ARMS, prepare_command
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peer_data import locate_peer_data
from larder.bench.peers import EpochLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.loader import check_manifest
from larder.progress import Reporter
from larder.store import region_of

if TYPE_CHECKING:
    from larder.loaders.loader import Batch


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-parquet/<split>/*.parquet`.

    Raises:
        ConfigurationError: If the store refuses access.
        InputError: If there are no Parquet files.
        ServiceError: If the store doesn't answer.
    """
    require_bucket(settings, "hf_datasets")
    with map_arm_errors(type(settings), prepare_command("hf_datasets")):
        where, found = locate_peer_data(settings, "parquet")
        manifest = check_manifest(found, "tree", settings.split, where)
        dataset = _open_dataset(where, settings)
        reader = f"streaming Parquet of datasets {version('datasets')}, by torch's DataLoader"

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(dataset, settings, epoch)

        yield MeasuredLoader(EpochLoader(manifest, settings, reader, open_epoch), lambda: None)


def _open_dataset(where: str, settings: LoaderSettings) -> Any:
    from datasets import Features, Image, Value, load_dataset

    from larder.loaders.bucket_data import open_artifact_prefix
    from larder.loaders.preprocessing import decode, reference_transform

    transform = reference_transform()
    folder = open_artifact_prefix(where, settings)
    files = [f"{where}/{item.path}" for item in folder.list() if item.path.endswith(".parquet")]

    def load(sample: dict[str, Any]) -> dict[str, Any]:
        return {"image": transform(decode(sample["image"]["bytes"], sample["image"]["path"])), "label": sample["label"]}

    dataset = load_dataset(
        "parquet",
        data_files=files,
        split="train",
        streaming=True,
        features=Features({"image": Image(decode=False), "label": Value("int64")}),
        storage_options=_storage_options(settings),
    )
    shuffled = dataset.shuffle(seed=settings.seed, **ARMS["hf_datasets"].options)
    return shuffled.map(load, features=None)


def _read_epoch(dataset: Any, settings: LoaderSettings, epoch: int) -> Generator[Batch, None, None]:
    from torch.utils.data import DataLoader

    dataset.set_epoch(epoch)
    for batch in DataLoader(dataset, settings.batch_size, num_workers=settings.workers):
        yield batch["image"], batch["label"]


def _storage_options(settings: LoaderSettings) -> dict[str, Any]:
    """Return what s3fs needs to open the store."""
    return {
        "key": settings.aws_access_key_id or None,
        "secret": settings.aws_secret_access_key.get_secret_value() or None,
        "token": settings.aws_session_token.get_secret_value() or None,
        "anon": settings.unsigned,
        "endpoint_url": settings.s3_endpoint_url or None,
        "client_kwargs": {"region_name": region_of(settings)},
    }
