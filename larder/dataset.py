"""A data set's name, and what is named after it: folders, prefixes in a bucket, volumes.

For `photos`, the folders `photos`, `photos-webdataset` and `photos-litdata`, on volumes and in a bucket, and the
volumes `photos_local_baseline`, `photos-webdataset_wds_out` and `photos-litdata_lit_out`. The default data set's
volumes are older than this rule and spell it `food11`.

Standard library only, and Python 3.9: the command line imports it before anything is installed.
"""

from __future__ import annotations

import re
from typing import Literal

DEFAULT = "Food-11"
"""The data set that is meant where no name is given. No other module holds a data set's name."""
LONGEST = 100
"""Characters. With what is appended, a name stays below the 255 bytes of a file system."""

Layout = Literal["tree", "webdataset", "litdata"]
"""How the images lie: one file each, in WebDataset tar shards, in LitData chunks."""
LAYOUTS: tuple[Layout, ...] = ("tree", "webdataset", "litdata")

_FOLDERS: dict[Layout, str] = {"tree": "", "webdataset": "-webdataset", "litdata": "-litdata"}
_VOLUMES: dict[Layout, str] = {
    "tree": "_local_baseline", "webdataset": "-webdataset_wds_out", "litdata": "-litdata_lit_out",
}  # fmt: skip
_IN_VOLUMES = {DEFAULT: "food11"}
_RESERVED = frozenset({"raw", "rejects", "objects", *_FOLDERS})
"""Folders that lie beside the data sets', and the words for layouts (LARDER_LOAD=webdataset)."""


def a_dataset(name: str) -> str:
    """Return `name` if a data set may have it.

    Args:
        name: Any text.

    Raises:
        ValueError: If folders and volumes can't be named after it.

    Example:
        >>> a_dataset("photos")
        'photos'
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError("must be letters, digits, . _ and -, beginning with a letter or digit")
    if len(name) > LONGEST:
        raise ValueError(f"must have at most {LONGEST} characters")
    if name.lower() in _RESERVED:
        raise ValueError(f"must be another word: {name.lower()} names a part of every data set")
    if (layout := layout_of(name)) != "tree":
        raise ValueError(f"must not end in {_FOLDERS[layout]}, which marks another layout of a data set")
    return name


def is_dataset(name: str) -> bool:
    """Return whether a data set may have this name."""
    try:
        a_dataset(name)
    except ValueError:
        return False
    return True


def folder_of(name: str, layout: Layout = "tree") -> str:
    """Return the name of a data set's folder, on its volume and in a bucket.

    Example:
        >>> folder_of("photos", "webdataset")
        'photos-webdataset'
    """
    return name + _FOLDERS[layout]


def index_folder_of(name: str) -> str:
    """Return the name of the folder in a bucket of an index of a data set whose images lie elsewhere.

    Example:
        >>> index_folder_of("photos")
        'photos-index'
    """
    return f"{name}-index"


def volume_of(name: str, layout: Layout = "tree") -> str:
    """Return the name of the volume that holds one layout of a data set.

    Example:
        >>> volume_of("photos"), volume_of("Food-11")
        ('photos_local_baseline', 'food11_local_baseline')
    """
    return _in_volumes(name) + _VOLUMES[layout]


def demo_volume_of(name: str) -> str:
    """Return the name of the data volume of a demonstration, which leaves the data set's own alone."""
    return f"{_in_volumes(name)}_demo"


def layout_of(folder: str) -> Layout:
    """Return which layout a folder of this name holds.

    Example:
        >>> layout_of("photos-litdata")
        'litdata'
    """
    for layout, suffix in _FOLDERS.items():
        if suffix and folder.endswith(suffix):
            return layout
    return "tree"


def dataset_of(folder: str) -> str:
    """Return whose folder it is.

    Example:
        >>> dataset_of("photos-litdata")
        'photos'
    """
    return folder.removesuffix(_FOLDERS[layout_of(folder)])


def _in_volumes(name: str) -> str:
    return _IN_VOLUMES.get(name, name)
