"""Derive the names of folders, bucket prefixes and volumes from a dataset's name.

The dataset `photos` has the folders `photos`, `photos-webdataset` and `photos-litdata`, on volumes and in a bucket, and
the volumes `photos_local_baseline`, `photos-webdataset_wds_out` and `photos-litdata_lit_out`. The default dataset's
volumes are older than this rule: their names begin with `food11`.

This module needs only Python 3.9 and the standard library, since the command line imports it on a bare machine.
"""

from __future__ import annotations

import re
from typing import Literal

DEFAULT = "Food-11"
"""The default dataset. No other module contains a dataset's name."""
MAX_NAME_LENGTH = 100
"""Maximum length of a name in characters. With all suffixes, it stays below the file system's limit of 255 bytes."""

ArtifactLayout = Literal["tree", "webdataset", "litdata"]
"""How the images are stored: as one file each, in WebDataset tar shards, or in LitData chunks."""
LAYOUTS: tuple[ArtifactLayout, ...] = ("tree", "webdataset", "litdata")

_FOLDERS: dict[ArtifactLayout, str] = {"tree": "", "webdataset": "-webdataset", "litdata": "-litdata"}
_VOLUMES: dict[ArtifactLayout, str] = {
    "tree": "_local_baseline",
    "webdataset": "-webdataset_wds_out",
    "litdata": "-litdata_lit_out",
}
_IN_VOLUMES = {DEFAULT: "food11"}
_RESERVED = frozenset({"raw", "rejects", "objects", *_FOLDERS})
"""Names of other folders beside the datasets' folders, and of the layouts (LARDER_LOAD=webdataset)."""


def validated_dataset(name: str) -> str:
    """Return `name` if it is a valid name for a dataset.

    Args:
        name: Any text.

    Raises:
        ValueError: If folders and volumes can't have this name.

    Example:
        >>> validated_dataset("photos")
        'photos'
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("must be letters, digits, . _ and -, beginning with a letter or digit")
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"must have at most {MAX_NAME_LENGTH} characters")
    if name.lower() in _RESERVED:
        raise ValueError(f"must be another word: {name.lower()} names a part of every dataset")
    if (layout := layout_of(name)) != "tree":
        raise ValueError(f"must not end in {_FOLDERS[layout]}, which marks another layout of a dataset")
    return name


def is_dataset(name: str) -> bool:
    """Return whether `name` is a valid name for a dataset."""
    try:
        validated_dataset(name)
    except ValueError:
        return False
    return True


def folder_of(name: str, layout: ArtifactLayout = "tree") -> str:
    """Return the name of a dataset's folder, on its volume and in a bucket.

    Example:
        >>> folder_of("photos", "webdataset")
        'photos-webdataset'
    """
    return name + _FOLDERS[layout]


def index_folder_of(name: str) -> str:
    """Return the name of the bucket folder with the index of a dataset whose images are stored elsewhere.

    Example:
        >>> index_folder_of("photos")
        'photos-index'
    """
    return f"{name}-index"


def volume_of(name: str, layout: ArtifactLayout = "tree") -> str:
    """Return the name of the volume for one layout of a dataset.

    Example:
        >>> volume_of("photos"), volume_of("Food-11")
        ('photos_local_baseline', 'food11_local_baseline')
    """
    return _in_volumes(name) + _VOLUMES[layout]


def demo_volume_of(name: str) -> str:
    """Return the name of the demo's data volume, which is separate from the dataset's own volume."""
    return f"{_in_volumes(name)}_demo"


def layout_of(folder: str) -> ArtifactLayout:
    """Return the layout that a folder of this name holds.

    Example:
        >>> layout_of("photos-litdata")
        'litdata'
    """
    for layout, suffix in _FOLDERS.items():
        if suffix and folder.endswith(suffix):
            return layout
    return "tree"


def dataset_of(folder: str) -> str:
    """Return the name of the dataset that a folder belongs to.

    Example:
        >>> dataset_of("photos-litdata")
        'photos'
    """
    return folder.removesuffix(_FOLDERS[layout_of(folder)])


def _in_volumes(name: str) -> str:
    return _IN_VOLUMES.get(name, name)
