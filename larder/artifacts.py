"""Find a data set's folder on a volume or in a bucket.

A data set lies in folders of its own name (`larder.dataset`). Earlier versions put every data set into the default's
folders, with its name in the manifest alone: such data are found there, and stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from larder import dataset as names
from larder import sample
from larder.contract import META, Manifest, find_manifest
from larder.dataset import Layout, folder_of
from larder.errors import ConfigurationError, InputError
from larder.progress import Reporter

_MANIFEST = Path(META, "manifest.json")


def on_volume(root: Path, layout: Layout, dataset: str, reporter: Reporter) -> str:
    """Return the name of the folder on a volume that holds, or is to hold, a layout of a data set.

    Args:
        root: Where the volume is mounted.
        layout: How the images lie.
        dataset: The data set's name; empty for the one that is there, or the default where none is.
        reporter: Told when the data lie where earlier versions put them.

    Raises:
        ConfigurationError: If no name is given and the volume holds several.
    """
    if dataset:
        return _home(layout, dataset, str(root), lambda folder: find_manifest(root / folder), reporter)
    found = sorted(folder for folder in _folders(root) if names.layout_of(folder) == layout)
    if len(found) > 1:
        raise ConfigurationError(
            f"{root} holds several data sets: {', '.join(found)}",
            next_step="set LARDER_DATASET to the one that is meant",
        )
    return found[0] if found else folder_of(names.DEFAULT, layout)


def in_bucket(
    layout: Layout, dataset: str, where: str, find: Callable[[str], Manifest | None], reporter: Reporter
) -> str:
    """Return the name of the folder in a bucket that holds a layout of a data set.

    Args:
        layout: How the images lie.
        dataset: The data set's name; empty for the default.
        where: The bucket and the prefix, for messages.
        find: Gives the manifest in a folder of this name, or None. It isn't asked for the default data set.
        reporter: Told when the data lie where earlier versions put them.
    """
    return _home(layout, dataset or names.DEFAULT, where, find, reporter)


def tree_at(place: Path, dataset: str, reporter: Reporter) -> Path:
    """Return the folder of a tree: `place`, if something finished is there, else the tree on the volume `place`.

    Where there is none either, `place` is returned, so that a message names what was asked for.

    Raises:
        ConfigurationError: If no name is given and the volume holds several.
    """
    if (place / _MANIFEST).exists():
        return place
    inside = place / on_volume(place, "tree", dataset, reporter)
    return inside if (inside / _MANIFEST).exists() else place


def require_dataset(asked: str, manifest: Manifest, where: str) -> None:
    """Raise ConfigurationError if LARDER_DATASET names another data set than a manifest does.

    The generated sample stands in for any.
    """
    if asked and manifest.dataset not in (asked, sample.NAME):
        raise ConfigurationError(
            f"{where} holds the data set {manifest.dataset!r}, and LARDER_DATASET is {asked!r}",
            next_step="leave LARDER_DATASET empty, which takes the name from the data, or extract them again under the "
            "other name",
        )


def name_in(manifest: Manifest, folder: str) -> str:
    """Return the name that other layouts of the data in a folder get, where LARDER_DATASET gives none.

    It is the manifest's. The default stands for the sample, for names that earlier versions allowed, and for what lies
    in the default's folder: data of one tree go by one name.
    """
    known = folder != names.DEFAULT and manifest.dataset != sample.NAME and names.is_dataset(manifest.dataset)
    return manifest.dataset if known else names.DEFAULT


def _home(layout: Layout, dataset: str, where: str, find: Callable[[str], Manifest | None], reporter: Reporter) -> str:
    own, shared = folder_of(dataset, layout), folder_of(names.DEFAULT, layout)
    if own == shared or _dataset_in(own, find) is not None or _dataset_in(shared, find) != dataset:
        return own
    reporter.event("found", f"{dataset} lies in {where}/{shared}, where earlier versions put it; it stays there")
    return shared


def _dataset_in(folder: str, find: Callable[[str], Manifest | None]) -> str | None:
    """The name in a folder's manifest, empty where that can't be read, None without one."""
    try:
        manifest = find(folder)
    except InputError:
        return ""
    return None if manifest is None else manifest.dataset


def _folders(root: Path) -> list[str]:
    """The folders on a volume that hold finished images, in any layout."""
    try:
        there = list(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        folder.name
        for folder in there
        if names.is_dataset(names.dataset_of(folder.name)) and (folder / _MANIFEST).exists()
    ]
