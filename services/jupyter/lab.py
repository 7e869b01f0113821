"""Find data, tell what is missing, and measure an arm as `make bench` does, for the notebooks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from larder import chunks
from larder.bench import rclone_metrics
from larder.bench.arms.imagefolder_rclone_mount import SOCKET
from larder.bench.layout_locations import locate_in_bucket, locate_mounted_tree, locate_tree, mount_path
from larder.bench.rclone_mount import CHECK_STORE, REMOUNT, check_mount, map_mount_errors
from larder.bench.run_rates import MEASURE_TWO_ARMS, ComparableArms, group_records, read_records
from larder.bench.run_table import render_table
from larder.bench.settings import LoaderSettings
from larder.bench.wording import name_settings_in_errors, next_steps_for
from larder.bucket import BucketPrefix
from larder.contract import Artifact, IndexEntry, Manifest, find_manifest, read_index, read_manifest
from larder.dataset import ArtifactLayout
from larder.distant.link import recorded_link
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.loaders.bucket_data import open_artifact_prefix
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.loader import check_manifest
from larder.loaders.traffic import NetworkTraffic
from larder.next_step import CREATED_BY, StageRun
from larder.progress import NullReporter, format_amount
from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_s3_error
from larder.shards import PlainTar
from larder.store import make_client
from larder.terminal import join_lines, print_escaped
from services.commands import replace_stage_names

IN_BUCKET: dict[str, tuple[ArtifactLayout, Artifact, str]] = {
    "objects": ("tree", "objects", CREATED_BY["objects"]),
    "shards": ("webdataset", "webdataset", CREATED_BY["webdataset"]),
    "chunks": ("litdata", "litdata", CREATED_BY["litdata"]),
}
"""What a bucket may hold: its layout, the artifact in its manifest, and the stage that uploads it."""
READS = {
    "imagefolder_local": "tree",
    "imagefolder_rclone_mount": "mount",
    "remote_one_sample": "objects",
    "webdataset": "shards",
    "stream": "shards",
    "litdata_streaming": "chunks",
}
"""What each arm reads."""
_STEPS = {
    REMOUNT: f"run {StageRun('mount')}, which also removes a dead mount",
    CHECK_STORE: f"{StageRun('s3', 'check')} diagnoses the store; "
    f"{CREATED_BY['objects']} restores what was deleted from it",
}
ANSWER_SECONDS = 10.0
"""Maximum time until a store's first answer."""
SLOW_SECONDS, KEPT_SECONDS = 2.0, 30.0
"""If `ready` had to wait for so long to learn that data are missing, it doesn't ask again for the other time."""
_RESTART = f"{StageRun('jupyter', 'up')} again, which keeps the workspace"
_AGAIN = f"where there is no store yet, {StageRun('s3', 'up')}; then {_RESTART}"
_INDEX_BYTES = 16 << 20
MIN_AHEAD = 2
"""Fewest chunks that a worker of LitData may prefetch."""


class Found(NamedTuple):
    """Data that can be read."""

    uri: str
    """The folder, as a path or a URI."""
    manifest: Manifest

    @property
    def smallest_split(self) -> str:
        """Name of the split with the fewest images, for measurements that read whole epochs."""
        splits = self.manifest.splits
        return min(splits, key=lambda name: splits[name].samples)


class StageError(LarderError):
    """An error that a stage reported before it ended."""


def load_settings() -> LoaderSettings:
    """Return the loaders' settings from the environment, as `make bench` reads them."""
    return LoaderSettings.load("bench", [], os.environ)


def bench(arm: str, **given: Any) -> dict[str, Any]:
    """Measure an arm in a separate process, as `make bench` does, print the table, and return the record.

    Raises ConfigurationError, InputError or ServiceError if the arm's data can't be read, and StageError if the stage
    fails.
    """
    _require_ready(READS[arm])
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


def ready(what: str) -> bool:
    """Return whether data can be read; if not, print one sentence with the command that makes them.

    Args:
        what: "tree", "mount", "objects", "shards", "chunks", or "records".
    """
    missing = explain_missing(what)
    if missing:
        print_escaped(f"Skipped: {missing}.")
    return not missing


def explain_missing(what: str) -> str:
    """Return why data can't be read, with the command that makes them; empty if they can be read. See `ready`."""
    until, missing = _MISSING.get(what, (0.0, ""))
    begin = monotonic()
    if begin < until:
        return missing
    try:
        compare_records() if what == "records" else find(what)
        return ""
    except (ConfigurationError, InputError, ServiceError) as error:
        missing = f"{error.what}; {error.next_step}"
    if monotonic() - begin > SLOW_SECONDS:
        _MISSING[what] = monotonic() + KEPT_SECONDS, missing
    return missing


_MISSING: dict[str, tuple[float, str]] = {}
"""Answers of `explain_missing` that took long, and until when they count."""


def find(what: str) -> Found:
    """Return data: see `ready`, without records. Raises what `open_artifact` raises."""
    if what in IN_BUCKET:
        prefix, manifest = open_artifact(what)
        return Found(prefix.uri, manifest)
    folder = find_mounted_tree() if what == "mount" else open_tree()[0]
    artifact: Artifact = "objects" if what == "mount" else "tree"
    with name_settings_in_errors(LoaderSettings, next_steps_for(replace_stage_names(CREATED_BY[artifact]))):
        return Found(str(folder), check_manifest(find_manifest(folder), artifact, load_settings().split, str(folder)))


def show_data() -> None:
    """Print what can be read here, with the number of images, and how to make what is missing."""
    for what in ("tree", "mount", *IN_BUCKET):
        missing = explain_missing(what)
        if missing:
            print_escaped(f"{what:<8} missing: {missing}")
            continue
        found = find(what)
        images = sum(split.samples for split in found.manifest.splits.values())
        print_escaped(f"{what:<8} {images:,} images in {found.uri}")


def scratch(name: str) -> Path:
    """Return an empty folder in LARDER_CACHE_DIR. What an earlier call has left in it is removed."""
    folder = load_settings().cache_dir / "notebooks" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


_INDEX_BYTES_PER_CHUNK = 1024
"""More than a chunk takes in LitData's own index, which is in the cache, too."""


def cache_sizes(split: str, workers: int = 1) -> dict[str, int]:
    """Return sizes of LitData's cache to compare, in bytes, by their descriptions: for the split, and for a part of it.

    The smaller one is the smallest with which LitData's workers don't deadlock. It is left out if it holds the split.

    Args:
        split: The split that is read.
        workers: Workers that read.
    """
    entries = read_chunk_index(open_artifact("chunks")[0], split).values()
    total, small = sum(one.bytes for one in entries), 2 * MIN_AHEAD * workers * max(one.bytes for one in entries)
    # LitData counts chunks twice that it fetches while it looks at the folder, and deletes at the limit already.
    whole = 2 * total + _INDEX_BYTES_PER_CHUNK * (len(entries) + 1)
    sizes = (whole, small) if small < total else (whole,)
    return {format_amount(size, "B"): size for size in sizes}


def _require_ready(what: str) -> LoaderSettings:
    """Check that the store or the mount is available that holds data, and return the settings.

    Raises ConfigurationError, InputError or ServiceError. Their next step also tells how to restart JupyterLab, which
    knows only the store and the mount that existed when it started.
    """
    chosen = load_settings()
    try:
        if what in IN_BUCKET:
            _require_answer(chosen)
        elif what == "mount":
            _require_bucket(chosen)
            with name_settings_in_errors(LoaderSettings, _next_steps()):
                check_mount(mount_path(chosen))
    except (ConfigurationError, InputError, ServiceError) as error:
        step = f"{error.next_step}; {_AGAIN if chosen.bucket else f'then {_RESTART}'}"
        raise type(error)(error.what, next_step=replace_stage_names(step)) from error
    return chosen


def _require_bucket(chosen: LoaderSettings) -> str:
    if not chosen.bucket:
        raise ConfigurationError(
            "there is no bucket yet: S3_BUCKET is not set",
            next_step=f"run {StageRun('s3', 'up')} and {CREATED_BY['objects']}, or set S3_BUCKET to a bucket of yours",
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


def open_artifact(what: str) -> tuple[BucketPrefix, Manifest]:
    """Return the prefix of objects, shards or chunks in the bucket, and their manifest.

    Raises ConfigurationError, InputError or ServiceError if they can't be read.
    """
    layout, artifact, made_by = IN_BUCKET[what]
    chosen = _require_ready(what)
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


def describe_link(record: dict[str, Any]) -> str:
    """Describe the simulated link to the store that a record names, or say how to simulate one."""
    link = recorded_link(record["provenance"])
    if link:
        return f"The store was read through {link.describe()}."
    slow = StageRun("s3", "up").with_settings(LARDER_S3_LATENCY="20ms", LARDER_S3_BANDWIDTH="200mbit")
    return replace_stage_names(
        f"The store is as near as the network makes it. To make it distant, run {slow}, then this notebook again."
    )


def find_mounted_tree() -> Path:
    """Return the tree's folder on the mount. Raises InputError if nothing is mounted, ServiceError if rclone died."""
    chosen = _require_ready("mount")
    return locate_mounted_tree(chosen, NullReporter())


def mount_traffic() -> NetworkTraffic:
    """Return the bytes and requests of the mount so far. Raise ServiceError if its rclone doesn't answer."""
    return rclone_metrics.read_traffic(load_settings().mount_dir / SOCKET)


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


def read_chunk_index(folder: BucketPrefix, split: str = "") -> dict[str, chunks.Extent]:
    """Return a split's chunks from LitData's index, with their lengths and numbers of samples.

    Without a split, it is that of the settings. Raises InputError if the index is missing, or larder didn't write it.
    """
    path = f"{split or load_settings().split}/{chunks.INDEX}"
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


def open_tree() -> tuple[Path, Manifest]:
    """Return the tree's folder and its manifest. Raises InputError if there is none."""
    folder = locate_tree(load_settings(), NullReporter())
    return folder, read_manifest(folder, made_by=replace_stage_names(CREATED_BY["tree"]))


def read_tree_index() -> list[IndexEntry]:
    """Return every image of the tree from its index, without opening files. Raises InputError if there is none."""
    return list(read_index(*open_tree()))


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
