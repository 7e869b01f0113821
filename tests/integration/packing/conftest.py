"""A tree to pack, and what the two packing stages share."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from larder.contract import META, IndexEntry, Manifest, SplitSummary, write_index

CLASSES = 3
FOLDERS = {"shard": "Food-11-webdataset", "optimize": "Food-11-litdata"}
SIZES = {"shard": "--shard-bytes=60000", "optimize": "--chunk-bytes=60000"}

Tree = Callable[[dict[str, bytes]], Path]


class Packing(NamedTuple):
    """One of the two stages."""

    stage: str
    folder: str
    size: str
    """The flag that makes packs of about twenty images."""


@pytest.fixture(params=["shard", "optimize"])
def packing(request: pytest.FixtureRequest) -> Packing:
    """Runs a test with either stage."""
    return Packing(request.param, FOLDERS[request.param], SIZES[request.param])


@pytest.fixture
def sharding() -> Packing:
    """The quicker of the two: for what neither does in a way of its own."""
    return Packing("shard", FOLDERS["shard"], SIZES["shard"])


@pytest.fixture(scope="session")
def images() -> dict[str, bytes]:
    """300 files of 1 to 5 KB in two splits and three classes, by path. Packing looks at no pixel."""
    source = random.Random(5)
    found = {}
    for split, count in (("training", 220), ("validation", 80)):
        for number in range(count):
            label = number % CLASSES
            found[f"{split}/class_{label:02d}/{label}_{number}.jpg"] = source.randbytes(source.randint(1000, 5000))
    return found


@pytest.fixture
def make_tree(volume: Path) -> Tree:
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
            artifact="tree", dataset="Food-11", classes=[f"class_{label:02d}" for label in range(CLASSES)],
            splits={split: _summary(split, entries) for split in sorted({path.split("/")[0] for path in files})},
            input={}, settings={}, files=len(entries), bytes=sum(entry.bytes for entry in entries),
            index=write_index(folder / META / "index.jsonl", entries),
        )  # fmt: skip
        (folder / META / "manifest.json").write_text(manifest.to_json())
        return folder

    return make


def _summary(split: str, entries: list[IndexEntry]) -> SplitSummary:
    own = [entry for entry in entries if entry.path.startswith(f"{split}/")]
    return SplitSummary(
        samples=len(own), bytes=sum(entry.bytes for entry in own),
        samples_per_class=[sum(entry.label == label for entry in own) for label in range(CLASSES)],
    )  # fmt: skip


@pytest.fixture
def tree(make_tree: Tree, images: dict[str, bytes]) -> Path:
    """The tree of `images`."""
    return make_tree(images)


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """The sha256 of every file below a folder but run.json, which may differ."""

    def digests(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return digests


@pytest.fixture(scope="session")
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a JSON lines file."""
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def objects(store: Any, bucket: str) -> Any:
    """The objects below a folder of the bucket: path and content, without run.json."""

    def objects(folder: str) -> dict[str, bytes]:
        found = {}
        for item in store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", ()):
            path = item["Key"].removeprefix(f"{folder}/")
            if not path.endswith("run.json"):
                found[path] = store.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        return found

    return objects


@pytest.fixture
def env(store: Any, bucket: str) -> dict[str, str]:
    """The settings that reach the bucket."""
    return store.env | {"S3_BUCKET": bucket}
