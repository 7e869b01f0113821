"""Trees to load, the stage that loads them, and readers of the store's content."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from larder.progress import Reporter
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from services.transform.settings import TransformSettings
from services.transform.transform import transform
from tests.conftest import Store
from tests.integration.conftest import MakePicture, Result, Stage

SPLITS = ("training", "validation", "evaluation")


MakeFiles = Callable[[int], dict[str, bytes]]


@pytest.fixture
def files(picture: MakePicture) -> MakeFiles:
    """`files(300)` returns that many images, named like Food-11's."""
    return lambda count: {f"{SPLITS[n % 3]}/{n % 11}_{n}.jpg": picture(n) for n in range(count)}


class MakeTree(Protocol):
    """What the fixture `tree` gives."""

    def __call__(self, images: int | Mapping[str, bytes], *, first: int = 0, **settings: str) -> dict[str, bytes]: ...


@pytest.fixture
def tree(tmp_path: Path, volume: Path, picture: MakePicture, files: MakeFiles) -> MakeTree:
    """Makes a tree on the volume. Returns its files by their paths in the tree.

    `tree(20)` has 20 images named like Food-11's, and `tree(20, first=1000)` other images with the same names.
    """

    def tree(images: int | Mapping[str, bytes], *, first: int = 0, **settings: str) -> dict[str, bytes]:
        if isinstance(images, int):
            images = {path: picture(first + number) for number, path in enumerate(files(images))}
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        for path, data in images.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
        settings = {"LARDER_VOLUME_DIR": str(volume), "LARDER_WORKERS": "1", "LARDER_FORCE": "true"} | settings
        extract(
            ExtractSettings.load("extract", [], settings | {"LARDER_SOURCE": str(source)}), Reporter("extract", "line")
        )
        transform(TransformSettings.load("transform", [], settings), Reporter("transform", "line"))
        made = volume / settings.get("LARDER_DATASET", "Food-11")
        return {
            str(path.relative_to(made)): path.read_bytes()
            for path in made.rglob("*")
            if path.is_file() and "_larder" not in path.parts
        }

    return tree


class Load(Protocol):
    """What the fixture `load` gives."""

    def __call__(self, *flags: str, env: Mapping[str, str] | None = None) -> Result: ...


@pytest.fixture
def load(stage: Stage, store: Store, bucket: str) -> Load:
    """Runs the stage with `store` and `bucket`, and checks that it prints no secret."""

    def load(*flags: str, env: Mapping[str, str] | None = None) -> Result:
        settings = store.env | {"S3_BUCKET": bucket} | dict(env or {})
        result = stage("load", *flags, env=settings)
        for secret in {store.secret_key, settings["AWS_SECRET_ACCESS_KEY"] or store.secret_key}:
            assert secret not in result.stdout + result.stderr
        return result

    return load


class InStore:
    """The objects in a bucket below Food-11/."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket

    def paths(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="Food-11/")
        return [item["Key"].removeprefix("Food-11/") for page in pages for item in page.get("Contents", ())]

    def read(self, path: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=f"Food-11/{path}")["Body"].read())

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"Food-11/{path}", Body=data)

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"Food-11/{path}")

    def data(self) -> dict[str, bytes]:
        """Return all objects, except larder's own."""
        own = self.kept()
        return {path: self.read(path) for path in self.paths() if not path.startswith("_larder/") and path not in own}

    def kept(self) -> list[str]:
        """The empty objects that stand in for class folders without images."""
        return [path for path in self.paths() if path.endswith("/.keep")]

    def find_manifest(self) -> dict[str, Any] | None:
        return self.manifest() if "_larder/manifest.json" in self.paths() else None

    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.read("_larder/manifest.json")))

    def find_whole(self) -> dict[str, str] | None:
        """Return what `require_whole` returns, or None without a manifest."""
        return self.require_whole() if self.find_manifest() else None

    def require_whole(self) -> dict[str, str]:
        """Follow the manifest as a reader does; each object must be what the index says. Returns sha256 by path."""
        manifest = self.manifest()
        index = self.read(f"_larder/index-{manifest['index']['sha256']}.jsonl")
        assert hashlib.sha256(index).hexdigest() == manifest["index"]["sha256"]
        lines = {line["path"]: line for line in map(json.loads, index.decode().splitlines())}
        for path, line in lines.items():
            data = self.read(path)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (line["bytes"], line["sha256"]), path
        assert len(lines) == manifest["files"]
        return {path: line["sha256"] for path, line in lines.items()}


@pytest.fixture
def there(store: Store, bucket: str) -> InStore:
    """What is in the store."""
    return InStore(store.client, bucket)


@pytest.fixture
def in_bucket() -> type[InStore]:
    """What is in a bucket of another store: `in_bucket(client, "images")`."""
    return InStore
