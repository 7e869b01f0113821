"""Locate the layouts of a dataset, from the settings."""

from __future__ import annotations

from pathlib import Path

from larder.artifacts import find_in_bucket, find_on_volume
from larder.bench.settings import LoaderSettings
from larder.contract import Manifest, find_manifest
from larder.dataset import ArtifactLayout
from larder.progress import Reporter


def locate_tree(settings: LoaderSettings, reporter: Reporter) -> Path:
    """Return the folder of the tree: `data_dir`, which is named after `dataset` by default."""
    folder, dataset = settings.data_dir, settings.dataset
    if not dataset:
        return folder
    if "data_dir" not in settings.model_fields_set:
        folder = folder.with_name(dataset)
    return (
        folder.parent / find_on_volume(folder.parent, "tree", dataset, reporter) if folder.name == dataset else folder
    )


def locate_in_bucket(settings: LoaderSettings, layout: ArtifactLayout, reporter: Reporter) -> str:
    """Return the URI of a layout in the bucket."""

    def find(name: str) -> Manifest | None:
        from larder.bucket import BucketPrefix

        return BucketPrefix(settings, name).find_manifest()

    parent = "/".join(part for part in (f"s3://{settings.bucket}", settings.prefix) if part)
    return f"{parent}/{find_in_bucket(layout, settings.dataset, parent, find, reporter)}"


def locate_mounted_tree(settings: LoaderSettings, reporter: Reporter) -> Path:
    """Return the folder of the tree on the mounted bucket."""
    parent = mount_path(settings) / settings.prefix
    return parent / find_in_bucket(
        "tree", settings.dataset, str(parent), lambda name: find_manifest(parent / name), reporter
    )


def mount_path(settings: LoaderSettings) -> Path:
    """Return the folder where the bucket is mounted."""
    return settings.mount_dir / settings.bucket
