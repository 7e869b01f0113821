"""The arms: one module each, named as on the command line, and one line each in `ARMS`.

An arm defines the measured loader and its arguments. `--help` shows the first line of its docstring. Its `open_loader`
creates the loader from the settings, and releases its resources at the end of the block.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

Layout = Literal["tree", "mount", "objects", "webdataset", "litdata"]
UNKNOWN = "unknown"
_NONE: Mapping[str, str] = MappingProxyType({})
_OWN = "larder-data"
_COMMON = "bench"


class ArmEntry(NamedTuple):
    """What is known of an arm without importing it."""

    layout: Layout
    """The layout that it reads."""
    packages: tuple[str, ...]
    """The distributions that it reads with, the most important one first."""
    how: str
    """How it is run, and how its settings were chosen."""
    environ: Mapping[str, str] = _NONE
    """Environment variables of its library that differ from the defaults in a comparison."""
    extra: str = _COMMON
    """The extra of larder-data that installs its packages."""
    is_peer: bool = False
    """Whether it is there for comparison only, without a notebook."""


ARMS: dict[str, ArmEntry] = {
    "imagefolder_local": ArmEntry("tree", ("torchvision", "torch"), "ImageFolder and DataLoader, as in their examples"),
    "imagefolder_rclone_mount": ArmEntry(
        "mount", ("torchvision", "torch"), "ImageFolder and DataLoader over `rclone mount`, as it is mounted"
    ),
    "litdata_streaming": ArmEntry(
        "litdata",
        ("litdata", "torch"),
        "StreamingDataset and StreamingDataLoader, as in their examples; with LITDATA_BATCH_DECODE=all, since litdata "
        "0.2.76 otherwise reads a whole chunk again at each miss of its decode window",
        MappingProxyType({"LITDATA_BATCH_DECODE": "all"}),
    ),
    "litdata_raw": ArmEntry(
        "objects",
        ("litdata", "torch"),
        "StreamingRawDataset and DataLoader, as in their example; no cache of files",
        is_peer=True,
    ),
    "remote_one_sample": ArmEntry("objects", ("s3fs", "torch"), "a GET per image in a map-style dataset, DataLoader"),
    "s3torchconnector": ArmEntry(
        "objects",
        ("s3torchconnector", "torch"),
        "S3MapDataset.from_objects with a transform, and DataLoader, as in its example",
        extra="bench,s3torchconnector",
        is_peer=True,
    ),
    "simplejpeg_local": ArmEntry(
        "tree",
        ("simplejpeg", "cykooz.resizer", "torch"),
        "decode_jpeg with accurate upsampling, and a bilinear crop_box resize, in DataLoader's workers",
        extra="bench,simplejpeg",
        is_peer=True,
    ),
    "stream": ArmEntry("webdataset", ("larder-data",), "ShardStream with its defaults; `workers` threads decode"),
    "webdataset": ArmEntry(
        "webdataset", ("webdataset", "torch"), "as LARDER_WEBDATASET_LOADER says, over fsspec's streams"
    ),
}
"""All arms, by name. The arm `name` is the module `larder.bench.arms.<name>`."""


def arm_names() -> list[str]:
    """Return the names of all arms, sorted."""
    return sorted(ARMS)


def is_optional(name: str) -> bool:
    """Return whether an arm needs packages that the extra `bench` doesn't install."""
    return ARMS[name].extra != _COMMON


def describe_arm(name: str) -> str:
    """Return the first line of an arm's docstring, without its full stop."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].rstrip(".")


def missing_packages(name: str) -> list[str]:
    """Return the distributions that an arm needs and that aren't installed."""
    return [package for package in ARMS[name].packages if package != _OWN and version_of(package) == UNKNOWN]


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, or "unknown"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def install_command(name: str) -> str:
    """Return the command that installs what an arm needs."""
    return f"pip install 'larder-data[{ARMS[name].extra}]'"
