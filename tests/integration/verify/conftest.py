"""A chain on three volumes, a copy for each test to damage, and the stage that verifies it."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from larder.contract import META, IndexSummary, SampleEntry, find_manifest
from larder.progress import Reporter
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from services.load.load import load
from services.load.settings import LoadSettings
from services.optimize.optimize import optimize
from services.optimize.settings import OptimizeSettings
from services.shard.settings import ShardSettings
from services.shard.shard import shard
from services.transform.settings import TransformSettings
from services.transform.transform import transform
from tests.conftest import Store
from tests.integration.conftest import Result, Stage

IMAGES = 66
"""Of the 33 splits and classes some have one image, which every sample of the data holds."""
LINKS = (
    "archive",
    "raw",
    "tree",
    "shards",
    "chunks",
    "objects in the store",
    "shards in the store",
    "chunks in the store",
)
LOCAL, STORED = LINKS[:5], LINKS[5:]


class Copy(NamedTuple):
    """A chain that a test may damage: the folders of its artifacts."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "data/raw"

    @property
    def tree(self) -> Path:
        return self.root / "data/Food-11"

    @property
    def shards(self) -> Path:
        return self.root / "wds/Food-11-webdataset"

    @property
    def chunks(self) -> Path:
        return self.root / "lit/Food-11-litdata"

    @property
    def env(self) -> dict[str, str]:
        """The settings that name its volumes."""
        folders = {"LARDER_VOLUME_DIR": "data", "LARDER_WDS_DIR": "wds", "LARDER_LIT_DIR": "lit"}
        return {name: str(self.root / folder) for name, folder in folders.items()}

    def sample(self, artifact: Path, source: str) -> SampleEntry:
        """Return a sample's line in the index of an artifact's packs."""
        lines = (artifact / META / "samples.jsonl").read_bytes().splitlines()
        return next(sample for sample in map(SampleEntry.from_json, lines) if sample.source == source)

    def forge(self, artifact: Path, **changes: Any) -> None:
        """Change a manifest, and update the digests of the index files, as an attacker would."""
        manifest = find_manifest(artifact)
        assert manifest is not None
        updates: dict[str, Any] = {"index": _summary(artifact / META / "index.jsonl")}
        if manifest.samples is not None:
            updates["samples"] = _summary(artifact / META / "samples.jsonl")
        text = manifest.model_copy(update=updates | changes).to_json()
        (artifact / META / "manifest.json").write_text(text)


def _summary(path: Path) -> IndexSummary:
    data = path.read_bytes()
    return IndexSummary(bytes=len(data), sha256=sha256(data).hexdigest())


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The sample, extracted, transformed, sharded and optimized, each pack of about ten images."""
    root = tmp_path_factory.mktemp("chain")
    for name in ("data", "wds", "lit"):
        (root / name).mkdir()
    data = {"LARDER_VOLUME_DIR": str(root / "data"), "LARDER_LOG": "line"}
    extract(
        ExtractSettings.load("extract", ["--source=sample", f"--sample-images={IMAGES}"], data),
        Reporter("extract", "line"),
    )
    transform(TransformSettings.load("transform", [], data), Reporter("transform", "line"))
    flags = [f"--input={root}/data/Food-11"]
    wds, lit = (data | {"LARDER_VOLUME_DIR": str(root / name), "LARDER_WORKERS": "1"} for name in ("wds", "lit"))
    shard(ShardSettings.load("shard", [*flags, "--shard-samples=10"], wds), Reporter("shard", "line"))
    optimize(OptimizeSettings.load("optimize", [*flags, "--chunk-samples=10"], lit), Reporter("optimize", "line"))
    return Copy(root)


@pytest.fixture
def chain(pristine: Copy, tmp_path: Path) -> Copy:
    """A copy of the chain to damage, with its hard links."""
    root = tmp_path / "chain"
    subprocess.run(["cp", "-a", pristine.root, root], check=True)
    return Copy(root)


@pytest.fixture(scope="session")
def lonely(pristine: Copy) -> str:
    """The path in the tree of an image that is the only one of its split and class."""
    manifest = find_manifest(pristine.tree)
    assert manifest is not None
    counts = manifest.splits["evaluation"].samples_per_class
    label = next(label for label in reversed(range(1, 11)) if counts[label] == 1)
    return f"evaluation/class_{label:02d}/{label}_0.jpg"


class Verify(Protocol):
    """What the fixture `verify` gives."""

    def __call__(
        self, *flags: str, samples: str = "all", env: Mapping[str, str] | None = None, **options: Any
    ) -> Result: ...


@pytest.fixture
def verify(stage: Stage, chain: Copy) -> Verify:
    """Runs the stage on `chain`, by default on all of it and without a store."""

    def verify(*flags: str, samples: str = "all", env: Mapping[str, str] | None = None, **options: Any) -> Result:
        settings = chain.env | {"LARDER_VERIFY_SAMPLES": samples, "LARDER_WORKERS": "1"} | dict(env or {})
        ended = stage("verify", *flags, env=settings, **options)
        secret = settings.get("AWS_SECRET_ACCESS_KEY")
        assert not secret or secret not in ended.stdout + ended.stderr
        return ended

    return verify


def results(stdout: str) -> dict[str, str]:
    """Return the result of each link from its line."""
    by_link = {}
    for line in stdout.splitlines():
        name = next(name for name in sorted(LINKS, key=len, reverse=True) if line[13:].startswith(name))
        by_link[name] = line[:12].strip()
    return by_link


Outcome = Callable[[str], dict[str, str]]


@pytest.fixture(scope="session")
def outcome() -> Outcome:
    """How each link ended, by name: `outcome(ended.stdout)["raw"]`."""
    return results


class Broken(Protocol):
    """What the fixture `broken` gives."""

    def __call__(self, ended: Result, link: str, *words: str) -> None: ...


@pytest.fixture(scope="session")
def broken() -> Broken:
    """Check that a run reports this break: `broken(ended, "raw", "has changed")`."""

    def broken(ended: Result, link: str, *words: str) -> None:
        assert ended.code == 3, ended.stdout + ended.stderr
        assert results(ended.stdout)[link] == "BROKEN", ended.stdout
        assert f"error: the chain breaks at {link}: " in ended.stderr
        assert "next step" in ended.stderr
        for word in words:
            assert word in ended.stderr

    return broken


def flip(path: Path, at: int) -> None:
    """Change one byte; length and inode stay."""
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def edit(path: Path, old: str, new: str) -> None:
    """Change the first `old` in a text file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


class Tools(NamedTuple):
    """Functions that damage files."""

    flip: Callable[[Path, int], None]
    edit: Callable[[Path, str, str], None]


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Breaks files: `tools.flip(path, 10)`."""
    return Tools(flip, edit)


@pytest.fixture(scope="session")
def chain_of() -> type[Copy]:
    """Return the chain in another folder."""
    return Copy


class Loaded(NamedTuple):
    """A chain in a bucket of a store, below the prefix `team`."""

    client: Any
    bucket: str
    env: dict[str, str]

    def key(self, path: str) -> str:
        return f"team/{path}"

    def read(self, path: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=self.key(path))["Body"].read())

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.key(path), Body=data)

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.key(path))

    def etags(self) -> dict[str, str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        items = [item for page in pages for item in page.get("Contents", ())]
        return {item["Key"].removeprefix("team/"): item["ETag"] for item in items}

    def all(self) -> dict[str, bytes]:
        return {path: self.read(path) for path in self.etags()}


@pytest.fixture(scope="session")
def loaded(pristine: Copy, store: Store) -> Iterator[Loaded]:
    """The last artifacts of the chain, in `store`: objects, shards and chunks."""
    bucket = f"larder-test-{uuid.uuid4().hex[:12]}"
    store.client.create_bucket(Bucket=bucket)
    env = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": "team"}
    loaded_data = Loaded(store.client, bucket, env)
    for folder in (pristine.tree, pristine.shards, pristine.chunks):
        settings = env | {"LARDER_VOLUME_DIR": str(folder.parent), "LARDER_LOAD": folder.name}
        load(LoadSettings.load("load", [], settings), Reporter("load", "line"))
    yield loaded_data
    for path in loaded_data.all():
        loaded_data.delete(path)
    store.client.delete_bucket(Bucket=bucket)


@pytest.fixture
def there(loaded: Loaded, objects: dict[str, bytes], etags: dict[str, str]) -> Iterator[Loaded]:
    """The objects in the store; changes are undone after each test."""
    yield loaded
    after = loaded.etags()
    for path in after.keys() - objects.keys():
        loaded.delete(path)
    for path, data in objects.items():
        if after.get(path) != etags[path]:
            loaded.put(path, data)


@pytest.fixture(scope="session")
def etags(loaded: Loaded) -> dict[str, str]:
    """Return the ETag of each object, which depends only on the content, since none was sent in parts."""
    return loaded.etags()


@pytest.fixture(scope="session")
def objects(loaded: Loaded) -> dict[str, bytes]:
    """Return all objects by path."""
    return loaded.all()
