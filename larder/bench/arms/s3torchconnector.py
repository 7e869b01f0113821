"""AWS's s3torchconnector over one object per image: S3MapDataset under PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import ObjectImages, export_keys, find_objects, make_map_style_loader
from larder.bench.settings import LoaderSettings
from larder.next_step import CREATED_BY
from larder.progress import Reporter
from larder.store import region_of


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>/<split>/class_XX/*.jpg`.

    Raises what `find_objects` raises.
    """
    require_bucket(settings, "s3torchconnector")
    with map_arm_errors(type(settings), CREATED_BY["objects"]):
        objects = find_objects(settings, reporter)
        export_keys(settings)
        reader = f"S3MapDataset of s3torchconnector {version('s3torchconnector')}, by torch's DataLoader"
        dataset = Labelled(_make_dataset(objects, settings), objects)
        yield MeasuredLoader(
            make_map_style_loader("s3torchconnector", dataset, objects.manifest, settings, reader), lambda: None
        )


def _make_dataset(objects: ObjectImages, settings: LoaderSettings) -> Any:
    from s3torchconnector import S3ClientConfig, S3MapDataset

    return S3MapDataset.from_objects(
        [objects.uri(number) for number in range(len(objects.table))],
        region=region_of(settings),
        endpoint=settings.s3_endpoint_url or None,
        transform=_decode,
        s3client_config=S3ClientConfig(force_path_style=bool(settings.s3_endpoint_url), unsigned=settings.unsigned),
    )


def _decode(file: Any) -> Any:
    from larder.loaders.preprocessing import decode, reference_transform

    return reference_transform()(decode(file.read(), file.key))


class Labelled:
    """The dataset's images with their labels."""

    def __init__(self, images: Any, objects: ObjectImages) -> None:
        self._images = images
        self._labels = [objects.table.label(number) for number in range(len(objects.table))]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self._images[number], self._labels[number]
