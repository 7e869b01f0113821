"""litdata's StreamingRawDataset over one object per image, under PyTorch's DataLoader.

It downloads a batch's objects at once, and keeps none. It gets the list of files from larder's index, since it would
write its own index into the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import ObjectImages, find_objects, make_map_style_loader
from larder.bench.settings import LoaderSettings
from larder.loaders.cache import locked_folder
from larder.next_step import CREATED_BY
from larder.progress import Reporter


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>/<split>/class_XX/*.jpg`.

    Raises what `find_objects` raises.
    """
    require_bucket(settings, "litdata_raw")
    with map_arm_errors(type(settings), CREATED_BY["objects"]), locked_folder(settings.cache_dir, "raw") as cache:
        objects = find_objects(settings, reporter)
        dataset = _make_dataset(objects, settings, str(cache))
        reader = f"StreamingRawDataset of litdata {version('litdata')}, by torch's DataLoader"
        yield MeasuredLoader(
            make_map_style_loader("litdata_raw", dataset, objects.manifest, settings, reader), lambda: None
        )


def _make_dataset(objects: ObjectImages, settings: LoaderSettings, cache: str) -> Any:
    from litdata import StreamingRawDataset
    from litdata.raw.indexer import BaseIndexer, FileMetadata

    from larder.litdata_adapter import set_client_options
    from larder.loaders.litdata_images import client_options, storage_options
    from larder.loaders.preprocessing import decode, reference_transform

    set_client_options(client_options(settings.s3_endpoint_url, settings.stall_seconds))
    transform = reference_transform()
    files = [
        FileMetadata(path=objects.uri(number), size=objects.table.length(number))
        for number in range(len(objects.table))
    ]

    class KnownFiles(BaseIndexer):  # type: ignore[misc]  # litdata has no types
        def discover_files(self, *_: Any) -> list[Any]:
            return files

        def build_or_load_index(self, *_: Any, **__: Any) -> list[Any]:
            return files

    class RawImages(StreamingRawDataset):  # type: ignore[misc]
        def __getitems__(self, numbers: list[int]) -> list[tuple[Any, int]]:
            contents = super().__getitems__(numbers)
            return [
                (transform(decode(bytes(content), files[number].path)), objects.table.label(number))
                for number, content in zip(numbers, contents, strict=True)
            ]

    return RawImages(
        f"{objects.folder.uri}/{settings.split}",
        cache_dir=cache,
        indexer=KnownFiles(),
        storage_options=storage_options(settings),
    )
