"""Find data, measure an arm as `make bench` does, and plot batches and records, for the notebooks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from botocore.exceptions import ClientError

from larder import chunks
from larder.bench.layout_locations import locate_in_bucket, locate_mounted_tree, locate_tree, mount_path
from larder.bench.rclone_mount import CHECK_STORE, REMOUNT, check_mount, map_mount_errors
from larder.bench.run_rates import MEASURE_TWO_ARMS, ComparableArms, group_records, read_records
from larder.bench.run_record import passes_of
from larder.bench.run_table import render_table
from larder.bench.settings import LoaderSettings
from larder.bench.wording import name_settings_in_errors, next_steps_for
from larder.bucket import BucketPrefix
from larder.contract import Artifact, IndexEntry, Manifest, read_index, read_manifest
from larder.dataset import ArtifactLayout
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.loaders.bucket_data import open_artifact_prefix
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.loader import check_manifest
from larder.next_step import CREATED_BY, StageRun
from larder.progress import NullReporter, format_amount
from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_s3_error
from larder.shards import PlainTar
from larder.store import make_client
from larder.terminal import join_lines, print_escaped
from services.commands import replace_stage_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

COLUMNS = 6
BUCKET_ARMS: dict[str, tuple[ArtifactLayout, Artifact, str]] = {
    "remote_one_sample": ("tree", "objects", CREATED_BY["objects"]),
    "webdataset": ("webdataset", "webdataset", CREATED_BY["webdataset"]),
    "stream": ("webdataset", "webdataset", CREATED_BY["webdataset"]),
    "litdata_streaming": ("litdata", "litdata", CREATED_BY["litdata"]),
}
"""For each arm that reads a bucket: its layout, the artifact in the manifest, and the stage that uploads it."""
_STEPS = {
    REMOUNT: f"run {StageRun('mount')}, which also removes a dead mount",
    CHECK_STORE: f"{StageRun('s3', 'check')} diagnoses the store; "
    f"{CREATED_BY['objects']} restores what was deleted from it",
}
MOUNT_ARM = "imagefolder_rclone_mount"
ANSWER_SECONDS = 10.0
"""Maximum time until a store's first answer."""
_AGAIN = (
    f"where there is no store yet, {StageRun('s3', 'up')}; then {StageRun('jupyter', 'up')} again, which keeps the "
    "workspace"
)
_MIB = 1 << 20
_INDEX_BYTES = 16 << 20


class StageError(LarderError):
    """An error that a stage reported before it ended."""


def load_settings() -> LoaderSettings:
    """Return the loaders' settings from the environment, as `make bench` reads them."""
    return LoaderSettings.load("bench", [], os.environ)


def measure(arm: str, **given: Any) -> dict[str, Any]:
    """Measure an arm in a separate process, as `make bench` does, print the table, and return the record.

    Raises ConfigurationError, InputError or ServiceError if the arm's data can't be read, and StageError if the stage
    fails.
    """
    _require_ready(arm)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "services.bench", f"--arm={arm}", "--log=json", *flags]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,  # a pipe would fill up: it is read at the end
        subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        last = deque[str](maxlen=15)
        for line in process.stderr:
            last.append(line)
            _print_event(line)
        if process.wait():
            raise _explain_failure(process.returncode, last)
        output.seek(0)
        record: dict[str, Any] = json.load(output)
    print_escaped(render_table(record))
    return record


def _parse_event(line: str) -> dict[str, Any] | None:
    """Parse an event of bench; None for a library's output."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"event", "message"} <= event.keys() else None


def _print_event(line: str) -> None:
    event = _parse_event(line)
    if event and event["event"] not in ("error", "next"):
        print_escaped(event["message"])


def _explain_failure(code: int, last: Sequence[str]) -> LarderError:
    for event in map(_parse_event, reversed(last)):
        if event and event["event"] == "error":
            what, _, next_step = event["message"].removeprefix("error: ").partition("\n  next step: ")
            return StageError(join_lines(*what.split("\n")), next_step=next_step)
    output = (line.rstrip("\n") for line in last)
    return ServiceError(join_lines(f"bench ended with {code}:", *output), next_step="run the cell again")


def _next_steps() -> dict[str, str]:
    """Return the next steps that only notebooks have, with the commands that the user types."""
    return {step: replace_stage_names(text) for step, text in _STEPS.items()}


def _require_ready(arm: str) -> LoaderSettings:
    """Check that the store or the mount that an arm reads is available, and return the settings.

    Raises ConfigurationError, InputError or ServiceError. Their next step also tells how to restart JupyterLab, which
    knows only the store and the mount that existed when it started.
    """
    chosen = load_settings()
    try:
        if arm in BUCKET_ARMS:
            _require_answer(chosen)
        elif arm == MOUNT_ARM:
            _require_bucket(chosen)
            with name_settings_in_errors(LoaderSettings, _next_steps()):
                check_mount(mount_path(chosen))
    except (ConfigurationError, InputError, ServiceError) as error:
        raise type(error)(error.what, next_step=replace_stage_names(f"{error.next_step}; {_AGAIN}")) from error
    return chosen


def _require_bucket(chosen: LoaderSettings) -> str:
    if not chosen.bucket:
        raise ConfigurationError(
            "S3_BUCKET is not set, and this notebook reads from a bucket",
            next_step=f"set S3_BUCKET, or RCLONE_CONTAINER, to the bucket that {CREATED_BY['objects']} loaded",
        )
    return chosen.bucket


def _require_answer(chosen: LoaderSettings) -> None:
    """Raise ConfigurationError or ServiceError unless the store answers within ANSWER_SECONDS.

    Without this check, bench would retry for minutes.
    """
    bucket = _require_bucket(chosen)
    try:
        make_client(chosen, timeout_seconds=ANSWER_SECONDS).head_bucket(Bucket=bucket)
    except S3_ERRORS as fault:
        if not isinstance(fault, ClientError) or code_of(fault) in ABSENT_CODES:  # others may forbid only this request
            what = f"waiting at most {ANSWER_SECONDS:g} s for s3://{bucket}"
            raise explain_s3_error(fault, what, chosen.s3_endpoint_url) from fault


def open_artifact(arm: str) -> tuple[BucketPrefix, Manifest]:
    """Return an arm's prefix in the bucket and its manifest. Raises InputError if there is none."""
    layout, artifact, made_by = BUCKET_ARMS[arm]
    chosen = _require_ready(arm)
    with name_settings_in_errors(LoaderSettings, next_steps_for(replace_stage_names(made_by))):
        folder = open_artifact_prefix(locate_in_bucket(chosen, layout, NullReporter()), chosen)
        return folder, check_manifest(folder.find_manifest(), artifact, chosen.split, folder.uri)


def describe_requests(record: dict[str, Any]) -> str:
    """Describe the ratio of requests to images in a record, and the bytes per request."""
    requests, images = record["network_requests"], record["images"]
    if not requests:
        return "no requests were counted"
    if requests >= images:
        ratio = f"{requests / images:.2f} requests per image"
    else:
        ratio = f"{images / requests:.0f} images per request"
    return f"{ratio}, {format_amount(record['network_bytes'] / requests, 'B')} in each"


def find_mounted_tree() -> Path:
    """Return the tree's folder on the mount. Raises InputError if nothing is mounted, ServiceError if rclone died."""
    chosen = _require_ready(MOUNT_ARM)
    return locate_mounted_tree(chosen, NullReporter())


def list_files(folder: Path, count: int) -> list[tuple[str, int]]:
    """Return the path and bytes of the first images of the split, on disk or on the mount.

    Lists only as many folders as needed. Raises InputError if the split is missing, and ServiceError if the mount's
    rclone died or the store doesn't answer.
    """
    chosen = load_settings()
    try:
        with _map_folder_errors(folder):
            classes = (path for path in sorted((folder / chosen.split).iterdir()) if path.is_dir())
            images = (image for folder_of_class in classes for image in sorted(folder_of_class.iterdir()))
            return [(str(image.relative_to(folder)), image.stat().st_size) for image in islice(images, count)]
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} doesn't exist",
            next_step=replace_stage_names(
                f"look at FOOD11_SPLIT; {CREATED_BY['tree']} makes the tree on disk, "
                f"{CREATED_BY['objects']} the one that is mounted"
            ),
        ) from None


@contextmanager
def _map_folder_errors(folder: Path) -> Iterator[None]:
    """Translate the errors of a block that reads a folder on disk or on the mount."""
    mount = mount_path(load_settings())
    with (
        name_settings_in_errors(LoaderSettings, _next_steps()),
        map_mount_errors(mount) if mount in folder.parents else nullcontext(),
    ):
        yield


def read_chunk_index(folder: BucketPrefix) -> dict[str, chunks.Extent]:
    """Return the chunks of the split from LitData's index, with their lengths and numbers of samples.

    Raises InputError if the index is missing, or larder didn't write it.
    """
    path = f"{load_settings().split}/{chunks.INDEX}"
    data = folder.with_body(path, lambda body: body.read(_INDEX_BYTES + 1))
    try:
        if data is None or len(data) > _INDEX_BYTES:
            raise ValueError("it is missing, or too long")
        return chunks.parse(data)
    except ValueError as fault:
        raise InputError(
            f"{folder.uri}/{path} isn't the index that larder writes ({fault})", next_step=CREATE_AGAIN
        ) from None


def list_shard_members(folder: BucketPrefix, shard: str, count: int) -> list[tuple[str, int]]:
    """Return the names and sizes of a shard's first members, read as the arm reads it."""
    from larder.loaders.s3_reader import STREAM_ERRORS, ProcessReaders
    from larder.loaders.traffic import TrafficCounter

    reader = ProcessReaders(folder.settings, TrafficCounter()).get()
    try:
        with reader.open(f"{folder.key}/{shard}") as file:
            plain: Any = PlainTar(file, reader.opened_uri, CREATE_AGAIN)
            with tarfile.open(fileobj=plain, mode="r|") as archive:
                return [(member.name, member.size) for member in islice(archive, count)]
    except (tarfile.TarError, ValueError) as fault:
        raise InputError(f"{reader.opened_uri} is damaged: {fault}", next_step=CREATE_AGAIN) from None
    except STREAM_ERRORS as fault:
        raise reader.explain(fault) from None


def plot_batch(images: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Plot the images of a batch with their labels, after undoing the reference preprocessing's normalization.

    Args:
        images: float32 [B, 3, H, W], as a loader yields them.
        labels: int64 [B].
        classes: The class names, by label.
    """
    from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD

    rows = -(-len(images) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(1.9 * COLUMNS, 2.1 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label in zip(axes.flat, images, labels, strict=False):
        pixels = image.permute(1, 2, 0) * image.new_tensor(IMAGENET_STD) + image.new_tensor(IMAGENET_MEAN)
        axis.imshow(pixels.clamp(0, 1).numpy())
        axis.set_title(f"{classes[int(label)]} ({int(label)})", fontsize=9)
    return figure


def open_tree() -> tuple[Path, Manifest]:
    """Return the tree's folder and its manifest. Raises InputError if there is none."""
    folder = locate_tree(load_settings(), NullReporter())
    return folder, read_manifest(folder, made_by=replace_stage_names(CREATED_BY["tree"]))


def read_tree_index() -> list[IndexEntry]:
    """Return every image of the tree from its index, without opening files. Raises InputError if there is none."""
    return list(read_index(*open_tree()))


def plot_class_counts(manifest: Manifest) -> Figure:
    """Plot the number of images per class, with a bar for each split."""
    figure, axis = plt.subplots(figsize=(10, 3.2), layout="constrained")
    width = 0.8 / len(manifest.splits)
    labels = range(len(manifest.classes))
    for number, (name, split) in enumerate(manifest.splits.items()):
        left = [label + number * width for label in labels]
        axis.bar(left, split.samples_per_class, width, label=f"{name}: {split.samples:,}")
    middle = (len(manifest.splits) - 1) * width / 2
    axis.set_xticks([label + middle for label in labels], manifest.classes, rotation=30, ha="right")
    axis.set_ylabel("images")
    axis.legend(frameon=False)
    return figure


def plot_file_sizes(entries: Sequence[IndexEntry]) -> Figure:
    """Plot a histogram of the images' sizes."""
    figure, axis = plt.subplots(figsize=(10, 2.6), layout="constrained")
    axis.hist([entry.bytes / 1024 for entry in entries], bins=60)
    axis.set_xlabel("KiB per image")
    axis.set_ylabel("images")
    return figure


def plot_network(record: dict[str, Any]) -> Figure:
    """Plot the bytes received per second in each measured pass, as nload would show them."""
    passes = passes_of(record)
    rates = [[rate / _MIB for rate in figures["received"]["bytes_per_s"]] for figures in passes]
    highest = max((rate for pass_rates in rates for rate in pass_rates), default=0.0)
    figure, axes = plt.subplots(1, len(passes), figsize=(10, 2.8), squeeze=False, sharey=True, layout="constrained")
    for axis, figures, pass_rates in zip(axes.flat, passes, rates, strict=True):
        if pass_rates:
            axis.stairs(pass_rates, figures["received"]["t_s"], fill=True)
        fetched = figures["network_bytes"]
        amount = "no network" if fetched is None else f"{format_amount(fetched, 'B')} of data"
        axis.set_title(f"{record['arm']}, {figures['pass']}: {amount} in {figures['seconds']:.1f} s", fontsize=10)
        axis.set_xlabel("seconds")
        axis.set_xlim(0, figures["seconds"])
        axis.set_ylim(0, max(1.0, 1.1 * highest))  # a rate near zero must look like one
    axes[0][0].set_ylabel("MiB/s received")
    return figure


def compare_records() -> list[ComparableArms]:
    """Return the records in LARDER_RESULTS, grouped by shared circumstances. Raises InputError without records."""
    with name_settings_in_errors(
        LoaderSettings,
        {
            MEASURE_TWO_ARMS: replace_stage_names(
                f"{MEASURE_TWO_ARMS}: {StageRun('bench').with_settings(LARDER_ARM='imagefolder_local')}"
            )
        },
    ):
        return group_records(read_records(load_settings().results))


def plot_throughput(comparison: ComparableArms) -> Figure:
    """Plot the median images/s of each arm, with its lowest and highest run."""
    arms = comparison.arms[::-1]
    figure, axis = plt.subplots(figsize=(10, 0.7 + 0.55 * len(arms)), layout="constrained")
    medians = [arm.median for arm in arms]
    spread = [[arm.median - arm.rates[0] for arm in arms], [arm.rates[-1] - arm.median for arm in arms]]
    names = [fill(f"{arm.name}, {format_amount(len(arm.rates), 'runs')}", 40) for arm in arms]
    axis.barh(names, medians, xerr=spread, capsize=4, height=0.6)
    axis.set_xlabel("images/s: median, with lowest and highest run")
    axis.set_title(fill(comparison.circumstances, 95), fontsize=9, loc="left")
    return figure
