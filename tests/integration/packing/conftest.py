"""A tree to pack, and both packing stages."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from larder.contract import META, IndexEntry, Manifest, SplitSummary, write_index
from tests.conftest import Proxy, Store
from tests.integration.conftest import Process, ReadObjects, Result, Stage

CLASSES = 3
FOLDERS = {"shard": "Food-11-webdataset", "optimize": "Food-11-litdata"}
SIZES = {"shard": "--shard-bytes=60000", "optimize": "--chunk-bytes=60000"}

MakeTree = Callable[[dict[str, bytes]], Path]


class Packing(NamedTuple):
    """One of the two stages."""

    stage: str
    folder: str
    size: str
    """The flag that makes packs of about ten images."""


@pytest.fixture(params=["shard", "optimize"])
def packing(request: pytest.FixtureRequest) -> Packing:
    """Runs a test with either stage."""
    return Packing(request.param, FOLDERS[request.param], SIZES[request.param])


@pytest.fixture
def sharding() -> Packing:
    """The faster of the two stages, for tests of code that both share."""
    return Packing("shard", FOLDERS["shard"], SIZES["shard"])


@pytest.fixture(scope="session")
def images() -> dict[str, bytes]:
    """150 files of 2 to 9 KB in two splits and three classes, by path. Packing doesn't decode images."""
    source = random.Random(5)
    files = {}
    for split, count in (("training", 110), ("validation", 40)):
        for number in range(count):
            label = number % CLASSES
            files[f"{split}/class_{label:02d}/{label}_{number}.jpg"] = source.randbytes(source.randint(2000, 9000))
    return files


@pytest.fixture
def make_tree(volume: Path) -> MakeTree:
    """Write a tree as transform leaves it, at `<volume>/Food-11`."""

    def make(files: dict[str, bytes]) -> Path:
        folder = volume / "Food-11"
        entries = []
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            label = int(path.split("/")[1].removeprefix("class_"))
            entries.append(IndexEntry(path, len(content), hashlib.sha256(content).hexdigest(), label, source=path))
        entries.sort(key=lambda entry: entry.path.encode())
        (folder / META).mkdir(exist_ok=True)
        manifest = Manifest(
            artifact="tree",
            dataset="Food-11",
            classes=[f"class_{label:02d}" for label in range(CLASSES)],
            splits={split: _summary(split, entries) for split in sorted({path.split("/")[0] for path in files})},
            input={},
            settings={},
            files=len(entries),
            bytes=sum(entry.bytes for entry in entries),
            index=write_index(folder / META / "index.jsonl", entries),
        )
        (folder / META / "manifest.json").write_text(manifest.to_json())
        return folder

    return make


def _summary(split: str, entries: list[IndexEntry]) -> SplitSummary:
    own = [entry for entry in entries if entry.path.startswith(f"{split}/")]
    return SplitSummary(
        samples=len(own),
        bytes=sum(entry.bytes for entry in own),
        samples_per_class=[sum(entry.label == label for entry in own) for label in range(CLASSES)],
    )


@pytest.fixture
def tree(make_tree: MakeTree, images: dict[str, bytes]) -> Path:
    """The tree of `images`."""
    return make_tree(images)


Digests = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def digests() -> Digests:
    """Return the sha256 of every file below a folder, except for run.json, which may differ."""

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return digests


@pytest.fixture(scope="session")
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a JSON lines file."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def env(store: Store, bucket: str) -> dict[str, str]:
    """The settings that reach the bucket."""
    return store.env | {"S3_BUCKET": bucket}


@dataclass(frozen=True)
class StorePacker:
    """Packs the tree into the bucket: `pack("x")` writes to the folder of its packs below the prefix x.

    With `via=proxy`, requests go through the proxy. Other options are those of `stage`.
    """

    packing: Packing
    stage: Stage
    bucket: str
    env: dict[str, str]
    read: ReadObjects

    def __call__(self, prefix: str, *flags: str, via: Proxy | None = None, **options: Any) -> Result:
        """Pack, and wait for the end."""
        return self.stage(self.packing.stage, *self.flags(prefix), *flags, env=self.settings(via), **options)

    def start(
        self, prefix: str, *flags: str, via: Proxy | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> Process:
        """Start to pack."""
        settings = self.settings(via) | dict(env or {})
        return self.stage.start(self.packing.stage, *self.flags(prefix), *flags, env=settings, **options)

    def to_volume(self, *flags: str) -> Result:
        """Pack on the volume."""
        return self.stage(self.packing.stage, self.packing.size, *flags)

    def load(self, *flags: str, via: Proxy | None = None) -> Result:
        """Load the volume's packs into the bucket."""
        return self.stage("load", f"--folder={self.packing.folder}", *flags, env=self.settings(via))

    def load_tree(self) -> None:
        """Load the tree into the bucket."""
        result = self.stage("load", env=self.env)
        assert result.code == 0, result.stderr

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """The objects of the packs below a prefix."""
        return self.read(self.folder(prefix))

    def folder(self, prefix: str = "") -> str:
        return f"{prefix}/{self.packing.folder}".removeprefix("/")

    def flags(self, prefix: str) -> tuple[str, str]:
        return self.packing.size, f"--dest=s3://{self.bucket}/{self.folder(prefix)}"

    def settings(self, via: Proxy | None = None) -> dict[str, str]:
        return self.env | ({"S3_ENDPOINT_URL": via.endpoint} if via else {})


@pytest.fixture
def pack(
    packing: Packing, stage: Stage, tree: Path, bucket: str, env: dict[str, str], objects: ReadObjects
) -> StorePacker:
    """Packs into the bucket, by either stage."""
    return StorePacker(packing, stage, bucket, env, objects)


@pytest.fixture
def shard(
    sharding: Packing, stage: Stage, tree: Path, bucket: str, env: dict[str, str], objects: ReadObjects
) -> StorePacker:
    """Packs into the bucket, by the faster stage."""
    return StorePacker(sharding, stage, bucket, env, objects)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A volume without a tree."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


ShrinkTree = Callable[[int], None]


@pytest.fixture
def shrink_tree(tree: Path, make_tree: MakeTree, images: dict[str, bytes]) -> ShrinkTree:
    """Leaves the first images of the tree: `shrink_tree(100)`."""

    def shrink(count: int) -> None:
        for path in list(images)[count:]:
            (tree / path).unlink()
        make_tree(dict(list(images.items())[:count]))

    return shrink
