"""Where the layouts of a data set lie, by the settings."""

from __future__ import annotations

from pathlib import Path

from larder.artifacts import in_bucket, on_volume
from larder.bench.settings import LoaderSettings
from larder.contract import Manifest, find_manifest
from larder.dataset import Layout
from larder.progress import Reporter


def tree_of(settings: LoaderSettings, reporter: Reporter) -> Path:
    """The folder of the tree: `data_dir`, which by default is named after `dataset`."""
    folder, dataset = settings.data_dir, settings.dataset
    if not dataset:
        return folder
    if "data_dir" not in settings.model_fields_set:
        folder = folder.with_name(dataset)
    return folder.parent / on_volume(folder.parent, "tree", dataset, reporter) if folder.name == dataset else folder


def uri_of(settings: LoaderSettings, layout: Layout, reporter: Reporter) -> str:
    """The folder of a layout in the bucket."""

    def find(name: str) -> Manifest | None:
        from larder.bucket import Folder

        return Folder(settings, name).find_manifest()

    place = "/".join(part for part in (f"s3://{settings.bucket}", settings.prefix) if part)
    return f"{place}/{in_bucket(layout, settings.dataset, place, find, reporter)}"


def mounted_tree_of(settings: LoaderSettings, reporter: Reporter) -> Path:
    """The folder of the tree on the mounted bucket."""
    place = mount_of(settings) / settings.prefix
    return place / in_bucket("tree", settings.dataset, str(place), lambda name: find_manifest(place / name), reporter)


def mount_of(settings: LoaderSettings) -> Path:
    """Where the bucket is mounted."""
    return settings.mount_dir / settings.bucket
