"""A tree, shards and chunks on volumes and in a store; the bench stage; mounts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image, ImageFilter, ImageOps

from larder import rclone
from larder.contract import META, IndexEntry, IndexSummary, Manifest, SplitSummary
from larder.store import BucketSettings
from larder.volume import CHUNKS, SHARDS
from tests import forks
from tests.conftest import Store, Until, own_bucket
from tests.integration.bench.packed_arms import ARMS

IMAGES = {"training": 40, "validation": 12}
CLASSES = 3
Fill = Callable[[dict[str, str]], None]
"""Puts objects into the bucket that the settings name."""
BucketWith = Callable[[Fill], str]
StartBench = Callable[..., forks.Fork]
RunBench = Callable[..., tuple[int | None, str, str]]
ArmRun = tuple[int | None, str, str, Any]
"""Exit code, stdout, stderr, and the record, or None."""
RunArm = Callable[..., ArmRun]
MountBucket = Callable[..., "Mount"]
OURS = ("LARDER_", "FOOD11_", "S3_", "AWS_", "RCLONE_")


@pytest.fixture(scope="session")
def made_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that tests copy."""
    return make_tree(tmp_path_factory.mktemp("tree") / "Food-11")


@pytest.fixture
def tree(made_tree: Path, tmp_path: Path) -> Path:
    """A tree as the transform stage leaves it: 40 training images, 12 for validation, 3 classes."""
    return shutil.copytree(made_tree, tmp_path / "Food-11")


def make_tree(folder: Path, *, smooth: bool = False) -> Path:
    """Make a tree of noise; `smooth` noise has nearly the same pixels by every decoder."""
    entries = [
        write_image(folder, split, number, smooth) for split, images in IMAGES.items() for number in range(images)
    ]
    index = "".join(entry.to_json() + "\n" for entry in sorted(entries)).encode()
    manifest = Manifest(
        artifact="tree",
        dataset="Food-11",
        classes=[f"class_{label:02d}" for label in range(CLASSES)],
        splits={split: summary(split, entries) for split in IMAGES},
        input={},
        settings={},
        files=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        index=IndexSummary(bytes=len(index), sha256=hashlib.sha256(index).hexdigest()),
    )
    (folder / META).mkdir()
    (folder / META / "index.jsonl").write_bytes(index)
    (folder / META / "manifest.json").write_text(manifest.to_json())
    return folder


def write_image(folder: Path, split: str, number: int, smooth: bool) -> IndexEntry:
    label = number % CLASSES
    path = f"{split}/class_{label:02d}/{number}.jpg"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    size = random.Random(number).choice([(300, 260), (260, 300), (400, 300)])
    image = Image.effect_noise(size, 60)
    if smooth:
        image = ImageOps.autocontrast(image.filter(ImageFilter.GaussianBlur(6)))
    image.convert("L" if number == 5 else "RGB").save(folder / path)
    content = (folder / path).read_bytes()
    return IndexEntry(path, len(content), hashlib.sha256(content).hexdigest(), label)


def summary(split: str, entries: list[IndexEntry]) -> SplitSummary:
    own = [entry for entry in entries if entry.path.startswith(f"{split}/")]
    return SplitSummary(
        samples=len(own),
        bytes=sum(entry.bytes for entry in own),
        samples_per_class=[sum(entry.label == label for entry in own) for label in range(CLASSES)],
    )


@pytest.fixture
def start_bench(tree: Path, tmp_path: Path) -> StartBench:
    """Start the stage: flags as arguments, environment variables by keyword."""

    def start(*flags: str, **environ: str) -> forks.Fork:
        known = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        ours = {
            "LARDER_FRONT_DOOR": "make",
            "FOOD11_DATA_DIR": str(tree),
            "LARDER_RESULTS": str(tmp_path / "results"),
            "LARDER_BATCH_SIZE": "8",
            "LARDER_WARMUP_BATCHES": "2",
            "LARDER_WORKERS": "2",
        }
        return forks.start("bench", flags, {**known, **ours, **environ})

    return start


@pytest.fixture
def run_bench(start_bench: StartBench) -> RunBench:
    """Run the stage to its end: its exit code, stdout and stderr."""

    def run(*flags: str, **environ: str) -> tuple[int | None, str, str]:
        with start_bench(*flags, **environ) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


@pytest.fixture
def own_copy() -> None:
    """For tests that change the bucket: `loaded` and `packed` then use a copy."""


@pytest.fixture(scope="session")
def filled() -> Iterator[Callable[[Store, Fill], str]]:
    """Fill a bucket once per session and store, and return its name: `filled(store, fill)`."""
    with ExitStack() as ending:
        kept: dict[tuple[str, Fill], str] = {}

        def bucket_with(store: Store, fill: Fill) -> str:
            if (store.endpoint, fill) not in kept:
                kept[store.endpoint, fill] = full = ending.enter_context(own_bucket(store.client))
                fill(store.env | {"S3_BUCKET": full, "S3_PREFIX": "team/food"})
            return kept[store.endpoint, fill]

        yield bucket_with


@pytest.fixture
def bucket_with(request: pytest.FixtureRequest, store: Store, filled: Callable[[Store, Fill], str]) -> BucketWith:
    """Return the shared filled bucket or, for tests with `own_copy`, a copy: `bucket_with(fill)`."""

    def bucket_with(fill: Fill) -> str:
        full = filled(store, fill)
        if "own_copy" not in request.fixturenames:
            return full
        bucket = request.getfixturevalue("bucket")
        for item in store.client.list_objects_v2(Bucket=full)["Contents"]:
            place = {"Bucket": bucket, "Key": item["Key"]}
            store.client.copy_object(**place, CopySource={"Bucket": full, "Key": item["Key"]})
        return bucket

    return bucket_with


@pytest.fixture(scope="session")
def fill_with_tree(made_tree: Path) -> Fill:
    """Loads the tree into a bucket: `fill_with_tree(environ)`."""
    return lambda environ: run_stage("load", **environ, LARDER_VOLUME_DIR=str(made_tree.parent))


@pytest.fixture
def loaded(store: Store, bucket_with: BucketWith, fill_with_tree: Fill) -> dict[str, str]:
    """The tree in a bucket, as the load stage puts it there; the settings that name it."""
    return store.env | {"S3_BUCKET": bucket_with(fill_with_tree), "S3_PREFIX": "team/food"}


def load(tree: Path, store: Store, bucket: str) -> dict[str, str]:
    environ = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": "team/food"}
    run_stage("load", **environ, LARDER_VOLUME_DIR=str(tree.parent))
    return environ


class Packs(NamedTuple):
    """A tree, and its images as shards and as chunks, on volumes."""

    tree: Path
    volumes: dict[str, Path]


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Packs:
    """A tree, and about five shards and five chunks for training."""
    folder = tmp_path_factory.mktemp("packs")
    tree = make_tree(folder / "Food-11")
    size = str(sum(path.stat().st_size for path in (tree / "training").rglob("*.jpg")) // 4)
    volumes = {"shard": folder / "shard", "optimize": folder / "optimize"}
    for (stage, volume), flag in zip(volumes.items(), ("--shard-bytes", "--chunk-bytes"), strict=True):
        volume.mkdir()
        run_stage(stage, flag, size, LARDER_VOLUME_DIR=str(volume), LARDER_INPUT=str(tree))
    return Packs(tree, volumes)


@pytest.fixture(scope="session")
def fill_with_packs(packs: Packs) -> Fill:
    """Loads the shards and the chunks into a bucket: `fill_with_packs(environ)`."""

    def fill(environ: dict[str, str]) -> None:
        for stage, name in (("shard", SHARDS), ("optimize", CHUNKS)):
            run_stage("load", **environ, LARDER_VOLUME_DIR=str(packs.volumes[stage]), LARDER_LOAD=name)

    return fill


@pytest.fixture
def packed(
    packs: Packs, store: Store, bucket_with: BucketWith, tmp_path: Path, fill_with_packs: Fill
) -> dict[str, str]:
    """The shards and the chunks in a bucket, as the load stage puts them there; the settings that name them."""
    environ = store.env | {"S3_BUCKET": bucket_with(fill_with_packs), "S3_PREFIX": "team/food"}
    return environ | {"LARDER_CACHE_DIR": str(tmp_path / "cache"), "FOOD11_DATA_DIR": str(packs.tree)}


@pytest.fixture
def start_packed(start_bench: StartBench, packed: dict[str, str]) -> StartBench:
    """Start an arm, or `library`, a variant of one: flags as arguments, settings by keyword.

    One worker reads, unless a test sets more.
    """

    def start(arm: str, *flags: str, **environ: str) -> forks.Fork:
        name = "webdataset" if arm == "library" else arm
        return start_bench("--arm", name, *flags, **(packed | ARMS[arm][0] | {"LARDER_WORKERS": "1"} | environ))

    return start


@pytest.fixture
def run_packed(start_packed: StartBench, tmp_path: Path) -> RunArm:
    """Run an arm to its end: its exit code, stdout, stderr, and its record if there is one."""

    def run(arm: str, *flags: str, **environ: str) -> ArmRun:
        with start_packed(arm, *flags, **environ) as process:
            out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        assert not list((tmp_path / "cache").glob("larder-*")) or not os.access(tmp_path / "cache", os.W_OK)
        records = sorted((tmp_path / "results").glob("*.json"))
        return process.returncode, out, err, json.loads(records[-1].read_text()) if records else None

    return run


def run_stage(stage: str, *flags: str, **environ: str) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with forks.start(stage, flags, known | environ) as process:
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


@pytest.fixture
def fuse() -> None:
    """Require what a mount needs."""
    lacking = [name for name in ("/dev/fuse", shutil.which("fusermount3") or "fusermount3") if not os.path.exists(name)]
    if lacking:
        why = f"no FUSE mount can be made here: {', '.join(lacking)} is missing"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)


class Mount:
    """A bucket mounted by a real rclone, as the mount stage does it."""

    def __init__(self, folder: Path, settings: BucketSettings, flags: tuple[str, ...]) -> None:
        self.folder, self.place = folder, folder / settings.bucket
        self.place.mkdir(parents=True)
        command = rclone.rclone_command(
            "mount",
            f"{rclone.REMOTE}:{settings.bucket}",
            str(self.place),
            "--read-only",
            "--vfs-cache-mode=off",
            "--dir-cache-time=10s",
            *flags,
        )
        self.log = (folder / "log").open("w+")
        self.rclone = subprocess.Popen(
            command, env=rclone.rclone_environment(settings), stdout=self.log, stderr=self.log
        )

    def is_there(self) -> bool:
        assert self.rclone.poll() is None, (self.folder / "log").read_text()
        return os.path.ismount(self.place) and (self.folder / ".rclone.sock").exists()

    def kill(self) -> None:
        """End rclone as the kernel does when memory is short: the mount stays, dead."""
        self.rclone.kill()
        self.rclone.wait()

    def end(self) -> None:
        self.kill()
        self.log.close()
        subprocess.run(["fusermount3", "-u", "-z", str(self.place)], check=False, capture_output=True)


@pytest.fixture
def mount(fuse: None, tmp_path: Path, until: Until) -> Iterator[MountBucket]:
    """Mount a store's bucket: `mount(endpoint, environ)`, with more of rclone's flags."""
    made: list[Mount] = []

    def mount_bucket(endpoint: str, environ: dict[str, str], *flags: str) -> Mount:
        settings = BucketSettings.load("mount", [], environ | {"S3_ENDPOINT_URL": endpoint})
        folder = tmp_path / f"mount-{len(made)}"
        made.append(Mount(folder, settings, (f"--metrics-addr=unix://{folder}/.rclone.sock", *flags)))
        until(made[-1].is_there, "the bucket is mounted")
        return made[-1]

    yield mount_bucket
    for one in made:
        one.end()
