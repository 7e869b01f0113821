"""What the notebooks call: find the data, measure an arm as `make bench` does, draw batches and what was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from botocore.exceptions import ClientError

from larder import chunks
from larder.bench.compare import MEASURE, Comparison, compare, read_records
from larder.bench.places import mount_of, mounted_tree_of, tree_of, uri_of
from larder.bench.rclone_mount import MOUNT, STORE, check_mount, mount_faults
from larder.bench.record import passes_of
from larder.bench.settings import LoaderSettings
from larder.bench.table import render
from larder.bench.wording import in_settings, steps_with
from larder.bucket import Folder
from larder.contract import Artifact, IndexEntry, Manifest, read_index, read_manifest
from larder.dataset import Layout
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.loaders.loader import check_manifest
from larder.loaders.remedies import RENEW
from larder.loaders.source import open_folder
from larder.next_step import MAKES, Run
from larder.progress import Silent, amount
from larder.s3_faults import ABSENT, FAULTS, code_of, explain
from larder.shards import PlainTar
from larder.store import client
from larder.terminal import lines, say
from services.commands import in_commands

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

COLUMNS = 6
STORED: dict[str, tuple[Layout, Artifact, str]] = {
    "remote_one_sample": ("tree", "objects", MAKES["objects"]),
    "webdataset": ("webdataset", "webdataset", MAKES["webdataset"]),
    "litdata_streaming": ("litdata", "litdata", MAKES["litdata"]),
}
"""What arms over a bucket read: the layout, what its manifest calls it, and who puts it there."""
_STEPS = {
    MOUNT: f"run {Run('mount')}, which also clears a dead mount away",
    STORE: f"{Run('s3', 'check')} looks at the store; {MAKES['objects']} puts back what was deleted from it",
}
MOUNTED = "imagefolder_rclone_mount"
ANSWER_SECONDS = 10.0
"""How long a store may take for its first answer."""
_AGAIN = f"where there is no store yet, {Run('s3', 'up')}; then {Run('jupyter', 'up')} again, which keeps the workspace"
_MIB = 1 << 20
_INDEX_BYTES = 16 << 20


class StageError(LarderError):
    """What a stage that was run ended with, in its words."""


def settings() -> LoaderSettings:
    """The settings that loaders take here, from the environment, as `make bench` has them."""
    return LoaderSettings.load("bench", [], os.environ)


def _flags(given: Mapping[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def measure(arm: str, **given: Any) -> dict[str, Any]:
    """Measure an arm by a process of its own, the very one of `make bench`, show the table, and give the record.

    Raises ConfigurationError, InputError or ServiceError before, and StageError with the stage's own words.
    """
    _ready(arm)
    command = [sys.executable, "-m", "services.bench", f"--arm={arm}", "--log=json", *_flags(given)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,  # a pipe that nobody reads yet would fill up
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        last = deque[str](maxlen=15)
        for line in process.stderr:
            last.append(line)
            _tell(line)
        if process.wait():
            raise _failure(process.returncode, last)
        output.seek(0)
        record: dict[str, Any] = json.load(output)
    say(render(record))
    return record


def _event(line: str) -> dict[str, Any] | None:
    """What bench reports in a line; None for a library's own words."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"event", "message"} <= found.keys() else None


def _tell(line: str) -> None:
    event = _event(line)
    if event and event["event"] not in ("error", "next"):
        say(event["message"])


def _failure(code: int, last: Sequence[str]) -> LarderError:
    for event in map(_event, reversed(last)):
        if event and event["event"] == "error":
            what, _, next_step = event["message"].removeprefix("error: ").partition("\n  next step: ")
            return StageError(lines(*what.split("\n")), next_step=next_step)
    words = (line.rstrip("\n") for line in last)
    return ServiceError(lines(f"bench ended with {code}:", *words), next_step="run the cell again")


def _steps() -> dict[str, str]:
    """The next steps that are better here, as the one who came by LARDER_FRONT_DOOR types them."""
    return {step: in_commands(words) for step, words in _STEPS.items()}


def _ready(arm: str) -> LoaderSettings:
    """The settings, when the store or the mount that an arm reads is there.

    Raises ConfigurationError, InputError or ServiceError whose next step helps JupyterLab, too: it knows only the store
    and the mount that were there as it started.
    """
    chosen = settings()
    try:
        if arm in STORED:
            _require_answer(chosen)
        elif arm == MOUNTED:
            _bucket_of(chosen)
            with in_settings(LoaderSettings, _steps()):
                check_mount(mount_of(chosen))
    except (ConfigurationError, InputError, ServiceError) as error:
        raise type(error)(error.what, next_step=in_commands(f"{error.next_step}; {_AGAIN}")) from error
    return chosen


def _bucket_of(chosen: LoaderSettings) -> str:
    if not chosen.bucket:
        raise ConfigurationError(
            "S3_BUCKET is not set, and this notebook reads from a bucket",
            next_step=f"set S3_BUCKET, or RCLONE_CONTAINER, to the bucket that {MAKES['objects']} loaded",
        )
    return chosen.bucket


def _require_answer(chosen: LoaderSettings) -> None:
    """Raise ConfigurationError or ServiceError unless the store answers, and soon: bench would try for minutes."""
    bucket = _bucket_of(chosen)
    try:
        client(chosen, timeout_seconds=ANSWER_SECONDS).head_bucket(Bucket=bucket)
    except FAULTS as fault:
        if not isinstance(fault, ClientError) or code_of(fault) in ABSENT:  # others may forbid only this question
            what = f"waiting at most {ANSWER_SECONDS:g} s for s3://{bucket}"
            raise explain(fault, what, chosen.s3_endpoint_url) from fault


def stored(arm: str) -> tuple[Folder, Manifest]:
    """An arm's folder in the bucket, and its manifest. Raises InputError when there is none, as bench does."""
    layout, artifact, made_by = STORED[arm]
    chosen = _ready(arm)
    with in_settings(LoaderSettings, steps_with(in_commands(made_by))):
        folder = open_folder(uri_of(chosen, layout, Silent()), chosen)
        return folder, check_manifest(folder.find_manifest(), artifact, chosen.split, folder.uri)


def requests(record: dict[str, Any]) -> str:
    """How requests and images of a record relate, and what one request brings, in words."""
    asked, images = record["network_requests"], record["images"]
    if not asked:
        return "no requests were counted"
    share = (
        f"{asked / images:.2f} requests for an image" if asked >= images else f"{images / asked:.0f} images a request"
    )
    return f"{share}, {amount(record['network_bytes'] / asked, 'B')} in each"


def mounted() -> Path:
    """The tree's folder on the mount. Raises InputError when nothing is mounted, ServiceError when its rclone died."""
    chosen = _ready(MOUNTED)
    return mounted_tree_of(chosen, Silent())


def first_files(folder: Path, count: int) -> list[tuple[str, int]]:
    """Path below the tree's folder, on disk or on the mount, and bytes of the first images of the split that is read.

    No more folders are listed than it takes. Raises InputError when there is no such split, ServiceError when the
    mount's rclone died or gets no answers.
    """
    chosen = settings()
    try:
        with _faults_of(folder):
            kinds = (kind for kind in sorted((folder / chosen.split).iterdir()) if kind.is_dir())
            images = (image for kind in kinds for image in sorted(kind.iterdir()))
            return [(str(image.relative_to(folder)), image.stat().st_size) for image in islice(images, count)]
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} isn't there",
            next_step=in_commands(
                f"look at FOOD11_SPLIT; {MAKES['tree']} makes the tree on disk, "
                f"{MAKES['objects']} the one that is mounted"
            ),
        ) from None


@contextmanager
def _faults_of(folder: Path) -> Iterator[None]:
    """A block that reads a folder of the disk or of the mount."""
    mount = mount_of(settings())
    with in_settings(LoaderSettings, _steps()), mount_faults(mount) if mount in folder.parents else nullcontext():
        yield


def chunk_index(folder: Folder) -> dict[str, chunks.Extent]:
    """The chunks of the split that is read, by LitData's index, with their lengths and numbers of samples.

    Raises InputError when that is missing or of another form than larder's.
    """
    path = f"{settings().split}/{chunks.INDEX}"
    data = folder.with_body(path, lambda body: body.read(_INDEX_BYTES + 1))
    try:
        if data is None or len(data) > _INDEX_BYTES:
            raise ValueError("it is missing, or too long")
        return chunks.parse(data)
    except ValueError as fault:
        raise InputError(f"{folder.uri}/{path} isn't the index that larder writes ({fault})", next_step=RENEW) from None


def shard_members(folder: Folder, shard: str, count: int) -> list[tuple[str, int]]:
    """Name and size of the first members of a shard, read as the arm reads it."""
    from larder.loaders.s3_reader import FAULTS_OF_STREAMS, Readers
    from larder.loaders.traffic import Traffic

    reader = Readers(folder.settings, Traffic()).own()
    try:
        with reader.open(f"{folder.key}/{shard}") as file:
            plain: Any = PlainTar(file, reader.opened, RENEW)
            with tarfile.open(fileobj=plain, mode="r|") as archive:
                return [(member.name, member.size) for member in islice(archive, count)]
    except (tarfile.TarError, ValueError) as fault:
        raise InputError(f"{reader.opened} is damaged: {fault}", next_step=RENEW) from None
    except FAULTS_OF_STREAMS as fault:
        raise reader.explain(fault) from None


def pictures(images: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """A batch as pictures with their labels: the reference preprocessing's normalization is taken back."""
    from larder.loaders.preprocessing import IMAGENET_MEAN, IMAGENET_STD

    rows = -(-len(images) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.9 * COLUMNS, 2.1 * rows), squeeze=False, layout="constrained")
    for place in axes.flat:
        place.axis("off")
    for place, image, label in zip(axes.flat, images, labels, strict=False):
        pixels = image.permute(1, 2, 0) * image.new_tensor(IMAGENET_STD) + image.new_tensor(IMAGENET_MEAN)
        place.imshow(pixels.clamp(0, 1).numpy())
        place.set_title(f"{classes[int(label)]} ({int(label)})", fontsize=9)
    return figure


def tree() -> tuple[Path, Manifest]:
    """The tree's folder and its manifest. Raises InputError when there is none."""
    folder = tree_of(settings(), Silent())
    return folder, read_manifest(folder, made_by=in_commands(MAKES["tree"]))


def index() -> list[IndexEntry]:
    """Every image of the tree, from its index: no folder is walked, no image opened. Raises InputError without one."""
    return list(read_index(*tree()))


def class_counts(manifest: Manifest) -> Figure:
    """Images of each class, a bar for each split."""
    figure, axis = plt.subplots(figsize=(10, 3.2), layout="constrained")
    width = 0.8 / len(manifest.splits)
    for number, (name, split) in enumerate(manifest.splits.items()):
        places = [place + number * width for place in range(len(manifest.classes))]
        axis.bar(places, split.samples_per_class, width, label=f"{name}: {split.samples:,}")
    middle = (len(manifest.splits) - 1) * width / 2
    axis.set_xticks(
        [place + middle for place in range(len(manifest.classes))], manifest.classes, rotation=30, ha="right"
    )
    axis.set_ylabel("images")
    axis.legend(frameon=False)
    return figure


def file_sizes(entries: Sequence[IndexEntry]) -> Figure:
    """How large the images are."""
    figure, axis = plt.subplots(figsize=(10, 2.6), layout="constrained")
    axis.hist([entry.bytes / 1024 for entry in entries], bins=60)
    axis.set_xlabel("KiB per image")
    axis.set_ylabel("images")
    return figure


def network(record: dict[str, Any]) -> Figure:
    """Bytes received per second while each pass was measured: what nload would have shown."""
    passes = passes_of(record)
    rates = [[rate / _MIB for rate in figures["received"]["bytes_per_s"]] for figures in passes]
    highest = max((rate for found in rates for rate in found), default=0.0)
    figure, places = plt.subplots(
        1, len(passes), figsize=(10, 2.8), squeeze=False, sharey=True, layout="constrained"
    )  # fmt: skip
    for place, figures, found in zip(places.flat, passes, rates, strict=True):
        if found:
            place.stairs(found, figures["received"]["t_s"], fill=True)
        fetched = figures["network_bytes"]
        told = "no network" if fetched is None else f"{amount(fetched, 'B')} of data"
        place.set_title(f"{record['arm']}, {figures['pass']}: {told} in {figures['seconds']:.1f} s", fontsize=10)
        place.set_xlabel("seconds")
        place.set_xlim(0, figures["seconds"])
        place.set_ylim(0, max(1.0, 1.1 * highest))  # what is nearly nothing looks like it
    places[0][0].set_ylabel("MiB/s received")
    return figure


def comparisons() -> list[Comparison]:
    """The records in LARDER_RESULTS, by the circumstances under which they can be compared. Raises InputError."""
    with in_settings(
        LoaderSettings, {MEASURE: in_commands(f"{MEASURE}: {Run('bench').having(LARDER_ARM='imagefolder_local')}")}
    ):
        return compare(read_records(settings().results))


def throughput(comparison: Comparison) -> Figure:
    """Median images/s of each arm, with its lowest and highest run."""
    found = comparison.arms[::-1]
    figure, axis = plt.subplots(figsize=(10, 0.7 + 0.55 * len(found)), layout="constrained")
    medians = [arm.median for arm in found]
    spread = [[arm.median - arm.rates[0] for arm in found], [arm.rates[-1] - arm.median for arm in found]]
    names = [fill(f"{arm.name}, {amount(len(arm.rates), 'runs')}", 40) for arm in found]
    axis.barh(names, medians, xerr=spread, capsize=4, height=0.6)
    axis.set_xlabel("images/s: median, with lowest and highest run")
    axis.set_title(fill(comparison.circumstances, 95), fontsize=9, loc="left")
    return figure
