"""Find a dataset's folder on a volume or in a bucket.

Folders are named after their dataset (`larder.dataset`). Earlier versions put every dataset into the folders of the
default dataset and recorded the name in the manifest only. This module still finds such data and leaves them in place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from larder import dataset as names
from larder import sample
from larder.contract import META, Manifest, find_manifest
from larder.dataset import ArtifactLayout, folder_of
from larder.errors import ConfigurationError, InputError
from larder.progress import Reporter

_MANIFEST = Path(META, "manifest.json")


def find_on_volume(root: Path, layout: ArtifactLayout, dataset: str, reporter: Reporter) -> str:
    """Return the name of the folder on a volume for one layout of a dataset, whether or not the folder exists.

    Args:
        root: Mount point of the volume.
        layout: Layout of the images.
        dataset: Name of the dataset. If empty, use the only dataset on the volume, or the default if there is none.
        reporter: Receives an event if the data are in the folder that earlier versions used.

    Returns:
        The folder's name, relative to `root`.

    Raises:
        ConfigurationError: If `dataset` is empty and the volume holds several datasets.
    """
    if dataset:
        return _choose_folder(layout, dataset, str(root), lambda folder: find_manifest(root / folder), reporter)
    folders = sorted(folder for folder in _folders(root) if names.layout_of(folder) == layout)
    if len(folders) > 1:
        raise ConfigurationError(
            f"{root} holds several datasets: {', '.join(folders)}",
            next_step="set LARDER_DATASET to one of them",
        )
    return folders[0] if folders else folder_of(names.DEFAULT, layout)


def find_in_bucket(
    layout: ArtifactLayout, dataset: str, where: str, find: Callable[[str], Manifest | None], reporter: Reporter
) -> str:
    """Return the name of the folder in a bucket for one layout of a dataset.

    Args:
        layout: Layout of the images.
        dataset: Name of the dataset; empty for the default.
        where: Bucket and prefix, for messages.
        find: Returns the manifest in the folder of a given name, or None. Not called for the default dataset.
        reporter: Receives an event if the data are in the folder that earlier versions used.

    Returns:
        The folder's name, without the prefix.
    """
    return _choose_folder(layout, dataset or names.DEFAULT, where, find, reporter)


def find_tree(path: Path, dataset: str, reporter: Reporter) -> Path:
    """Return the folder of a tree.

    Args:
        path: The tree's folder, or the volume that holds the tree.
        dataset: Name of the dataset; may be empty, see `find_on_volume`.
        reporter: See `find_on_volume`.

    Returns:
        `path` if it has a manifest, else the tree's folder on the volume `path`. If neither has a manifest, return
        `path`, so that messages name the folder that the user gave.

    Raises:
        ConfigurationError: If `dataset` is empty and the volume holds several datasets.
    """
    if (path / _MANIFEST).exists():
        return path
    inside = path / find_on_volume(path, "tree", dataset, reporter)
    return inside if (inside / _MANIFEST).exists() else path


def require_dataset(asked: str, manifest: Manifest, where: str) -> None:
    """Raise ConfigurationError if LARDER_DATASET and a manifest name different datasets.

    The generated sample dataset is accepted under any name.

    Args:
        asked: Value of LARDER_DATASET; empty accepts every dataset.
        manifest: Manifest of the data.
        where: Location of the data, for the message.
    """
    if asked and manifest.dataset not in (asked, sample.NAME):
        raise ConfigurationError(
            f"{where} holds the dataset {manifest.dataset!r}, and LARDER_DATASET is {asked!r}",
            next_step="leave LARDER_DATASET empty, which takes the name from the data, or extract them again under the "
            "other name",
        )


def require_dataset_name(manifest: Manifest, folder: str) -> str:
    """Return the dataset name for new layouts of existing data if LARDER_DATASET is empty.

    Args:
        manifest: Manifest of the existing data.
        folder: Name of the folder that holds them.

    Returns:
        The name in the manifest. Return the default name for the sample dataset, for names that only earlier versions
        allowed, and for data in the default dataset's folder, so that all layouts of one tree share a name.
    """
    known = folder != names.DEFAULT and manifest.dataset != sample.NAME and names.is_dataset(manifest.dataset)
    return manifest.dataset if known else names.DEFAULT


def _choose_folder(
    layout: ArtifactLayout, dataset: str, where: str, find: Callable[[str], Manifest | None], reporter: Reporter
) -> str:
    """Return the dataset's own folder, or the default dataset's folder if only that one holds the dataset."""
    own, shared = folder_of(dataset, layout), folder_of(names.DEFAULT, layout)
    if own == shared or _dataset_in(own, find) is not None or _dataset_in(shared, find) != dataset:
        return own
    reporter.event("found", f"{dataset} lies in {where}/{shared}, where earlier versions put it; it stays there")
    return shared


def _dataset_in(folder: str, find: Callable[[str], Manifest | None]) -> str | None:
    """Return the dataset name in a folder's manifest, "" if the manifest is invalid, None if there is none."""
    try:
        manifest = find(folder)
    except InputError:
        return ""
    return None if manifest is None else manifest.dataset


def _folders(root: Path) -> list[str]:
    """Return the names of the folders on a volume that hold finished images, in any layout."""
    try:
        entries = list(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        folder.name
        for folder in entries
        if names.is_dataset(names.dataset_of(folder.name)) and (folder / _MANIFEST).exists()
    ]
