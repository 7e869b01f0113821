"""Ray Data over one object per image: read_binary_files and map on a cluster of one machine.

The first epoch starts Ray's workers, which import torch: so two epochs are measured.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.arms import ARMS
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import EpochLoader, ObjectImages, find_objects
from larder.bench.settings import LoaderSettings
from larder.next_step import CREATED_BY
from larder.progress import Reporter
from larder.store import region_of

if TYPE_CHECKING:
    from larder.loaders.loader import Batch


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>/<split>/class_XX/*.jpg`.

    Raises what `find_objects` raises.
    """
    require_bucket(settings, "ray_data")
    with map_arm_errors(type(settings), CREATED_BY["objects"]), _local_cluster(max(settings.workers, 1)):
        objects = find_objects(settings, reporter)
        reader = f"read_binary_files and map of Ray Data {version('ray')}"

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(objects, settings, epoch)

        loader = EpochLoader(objects.manifest, settings, reader, open_epoch)
        yield MeasuredLoader(loader, lambda: None, passes=("cold", "warm"))


@contextmanager
def _local_cluster(cpus: int) -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def _read_epoch(objects: ObjectImages, settings: LoaderSettings, epoch: int) -> Generator[Batch, None, None]:
    import ray

    table, folder = objects.table, objects.folder
    root = f"{folder.bucket}/{folder.key}"
    labels = {f"{root}/{table.path(number)}": table.label(number) for number in range(len(table))}

    def load(row: dict[str, Any]) -> dict[str, Any]:
        from larder.loaders.preprocessing import decode, reference_transform

        image = reference_transform()(decode(row["bytes"], row["path"]))
        return {"image": image.numpy(), "label": labels[row["path"]]}

    dataset = ray.data.read_binary_files(
        f"{root}/{settings.split}",
        filesystem=_filesystem(settings),
        include_paths=True,
        shuffle=ray.data.FileShuffleConfig(seed=settings.seed + epoch),
    ).map(load)
    for batch in dataset.iter_torch_batches(batch_size=settings.batch_size, **ARMS["ray_data"].options):
        yield batch["image"], batch["label"]


def _filesystem(settings: LoaderSettings) -> Any:
    from pyarrow.fs import S3FileSystem

    place = urlsplit(settings.s3_endpoint_url)
    endpoint = {"endpoint_override": place.netloc, "scheme": place.scheme} if settings.s3_endpoint_url else {}
    if settings.unsigned:
        return S3FileSystem(anonymous=True, region=region_of(settings), **endpoint)
    return S3FileSystem(
        access_key=settings.aws_access_key_id or None,
        secret_key=settings.aws_secret_access_key.get_secret_value() or None,
        session_token=settings.aws_session_token.get_secret_value() or None,
        region=region_of(settings),
        **endpoint,
    )
