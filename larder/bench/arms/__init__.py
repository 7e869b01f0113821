"""The arms: one module each, named as on the command line, and one line each in `ARMS`.

An arm defines the measured loader and its arguments. `--help` shows the first line of its docstring. Its `open_loader`
creates the loader from the settings, and releases its resources at the end of the block.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from larder.bench import peer_environments
from larder.next_step import StageRun

Layout = Literal["tree", "mount", "objects", "webdataset", "litdata", "mds", "parquet", "tar"]
View = Literal["crop", "squash"]
Workers = Literal["processes", "threads", "all cores"]
IN_BUCKET: tuple[Layout, ...] = ("objects", "webdataset", "litdata", "mds", "parquet")
"""Layouts that are read from a bucket."""
UNKNOWN = "unknown"
_NONE: Mapping[str, Any] = MappingProxyType({})
_OWN = "larder-data"
IMAGE_PREFIX = "/opt/venv"
"""Where larder's images have Python's packages."""
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
    options: Mapping[str, Any] = _NONE
    """Arguments of its library that differ from the library's defaults."""
    environment: str = ""
    """The environment of its own that it runs in (`peer_environments`), since it pins packages to other versions."""
    view: View = "crop"
    """What it shows of an image: the crop of the reference preprocessing, or all of it, squashed to a square."""
    workers: Workers = "processes"
    """What LARDER_WORKERS counts; `all cores`: the library ignores it."""


ARMS: dict[str, ArmEntry] = {
    "dali": ArmEntry(
        "tree",
        ("nvidia-dali-cuda120", "torch"),
        "readers.file, decoders.image, resize and crop_mirror_normalize on the CPU, and DALIGenericIterator, as in its "
        "ImageNet example; `workers` threads",
        extra="bench,dali",
        is_peer=True,
        workers="threads",
    ),
    "hf_datasets": ArmEntry(
        "parquet",
        ("datasets", "s3fs", "torch"),
        "load_dataset with streaming, shuffle and map, and DataLoader, as in its examples; one file at a time feeds a "
        "shuffle, since datasets 5.2 otherwise sleeps for 5 s at a worker's end; without its statistics",
        MappingProxyType({"HF_UPDATE_DOWNLOAD_COUNTS": "0"}),
        extra="bench,datasets",
        is_peer=True,
        options=MappingProxyType({"max_buffer_input_shards": 1}),
    ),
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
    "mosaicml": ArmEntry(
        "mds",
        ("mosaicml-streaming", "torch"),
        "StreamingDataset with batch_size, and StreamingDataLoader, as in their example",
        is_peer=True,
        environment="mosaicml",
    ),
    "ray_data": ArmEntry(
        "objects",
        ("ray", "pandas", "pyarrow", "torch"),
        "read_binary_files with shuffled files, map and iter_torch_batches, on a local cluster of `workers` CPUs",
        extra="bench,ray-data",
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
    "s3torchconnector_shards": ArmEntry(
        "webdataset",
        ("s3torchconnector", "torch"),
        "S3IterableDataset of tar shards with enable_sharding, tarfile and DataLoader, as in its own benchmark",
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
    "spdl": ArmEntry(
        "tree",
        ("spdl", "torch"),
        "a pipeline of PIL decoding and collating in `workers` threads, as in its example",
        extra="bench,spdl",
        is_peer=True,
        workers="threads",
        options=MappingProxyType({"buffered_batches": 2}),
    ),
    "stream": ArmEntry(
        "webdataset", ("larder-data",), "ShardStream with its defaults; `workers` threads decode", workers="threads"
    ),
    "turboloader": ArmEntry(
        "tar",
        ("turboloader", "torch"),
        "DataLoader's fast path with antialias, as in its example: all threads of the machine, and the whole image, "
        "squashed to a square",
        extra="bench,turboloader",
        is_peer=True,
        options=MappingProxyType({"antialias": True}),
        view="squash",
        workers="all cores",
    ),
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
    return ARMS[name].extra != _COMMON or bool(ARMS[name].environment)


def about_arm(name: str) -> str:
    """Return the first line of an arm's docstring, without its full stop."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return docstring.partition("\n")[0].rstrip(".")


def missing_packages(name: str) -> list[str]:
    """Return the distributions that an arm needs and that are installed neither here nor in its environment."""
    return [package for package in ARMS[name].packages if package != _OWN and version_of(package) == UNKNOWN]


def describe_missing(packages: Sequence[str]) -> str:
    """Return that packages aren't installed.

    Example:
        >>> describe_missing(["simplejpeg", "cykooz.resizer"])
        "simplejpeg and cykooz.resizer aren't installed"
    """
    return f"{' and '.join(packages)} {'is' if len(packages) == 1 else 'are'}n't installed"


def is_elsewhere(name: str) -> bool:
    """Return whether an arm runs in an environment of its own: it has one, and its packages aren't installed here."""
    entry = ARMS[name]
    return bool(entry.environment) and not all(map(_installed_version, entry.packages))


def version_of(distribution: str) -> str:
    """Return the version of a distribution that is installed here or in a peer's environment, or "unknown"."""
    return _installed_version(distribution) or peer_environments.version_of(distribution) or UNKNOWN


def _installed_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def install_command(*names: str) -> str:
    """Return the command that installs what arms need: a command in a shell, or a stage (`larder.next_step`).

    Several arms are those that larder's extras install.

    Nothing can be installed in a container of larder's images, which are read-only and don't have other libraries. Then
    the runner that uses no containers helps.
    """
    if is_in_image():
        return str(StageRun("bench", "compare").with_settings(RUNNER="host"))
    if ARMS[names[0]].environment:
        return prepare_command(names[0])
    extras = dict.fromkeys(extra for name in names for extra in ARMS[name].extra.split(","))
    return f"`pip install 'larder-data[{','.join(extras)}]'`"


def is_in_image() -> bool:
    """Return whether this runs in one of larder's images."""
    return sys.prefix == IMAGE_PREFIX


def prepare_command(name: str) -> str:
    """Return the stage that makes an arm's environment, and the data that only this arm reads."""
    return str(StageRun("bench", "peers").with_settings(LARDER_ARM=name))
