"""Say in plain words what an arm reads with which loader, and which page shows how to train with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from larder.bench.arms import ARMS, Layout

_SCRIPTS = "docs/use-in-training.md"
LAYOUTS: Mapping[Layout, str] = {
    "tree": "files on a disk",
    "mount": "the bucket, mounted as a folder",
    "objects": "one object per image",
    "webdataset": "tar shards",
    "litdata": "LitData's chunks",
    "mds": "MosaicML's shards (MDS)",
    "parquet": "Parquet files",
    "tar": "one tar file on a disk",
}
ON_DISK: tuple[Layout, ...] = ("tree", "tar")
"""Layouts that are read from this machine's disk, without a store."""


class Way(NamedTuple):
    """What to train with."""

    loader: str
    """The loader, by the name that its users know."""
    page: str
    """The page with a script, and its section."""


_WAYS = {
    "stream": Way("larder.stream", f'{_SCRIPTS}, "One GPU"'),
    "webdataset": Way("webdataset", f'{_SCRIPTS}, "webdataset"'),
    "litdata_streaming": Way("LitData's StreamingDataset", f'{_SCRIPTS}, "LitData"'),
    "remote_one_sample": Way("s3fs, a GET for each", f'{_SCRIPTS}, "One object per image"'),
    "imagefolder_local": Way("torchvision's ImageFolder", f'{_SCRIPTS}, "Files"'),
    "imagefolder_rclone_mount": Way("torchvision's ImageFolder", f'{_SCRIPTS}, "Files"'),
}


def way_of(arm: str) -> Way:
    """Return the loader of an arm, and the page about it."""
    if arm in _WAYS:
        return _WAYS[arm]
    library = ARMS[arm].packages[0] if arm in ARMS else arm
    return Way(library, 'docs/benchmarking.md, "Arms of other libraries"')


def in_words(arm: str) -> str:
    """Return layout and loader of an arm.

    Example:
        >>> in_words("stream")
        'tar shards, read by larder.stream'
    """
    return f"{LAYOUTS[ARMS[arm].layout]}, read by {way_of(arm).loader}" if arm in ARMS else arm


def reads_a_store(arm: str) -> bool:
    """Return whether an arm reads its images from a store."""
    return arm in ARMS and ARMS[arm].layout not in ON_DISK


def name_page(arms: Sequence[str]) -> str:
    """Return which page shows how to train with the first of some arms; if it reads a disk, also with one from a store.

    Example:
        >>> name_page(["stream", "webdataset"])
        'docs/use-in-training.md, "One GPU", shows how to train with larder.stream'
    """
    best = arms[0]
    remote = next(filter(reads_a_store, arms), best)
    pages = dict.fromkeys(f"{way_of(arm).page}, shows how to train with {way_of(arm).loader}" for arm in (best, remote))
    return "; ".join(pages)
