"""Trees to load, the stage that loads them, and a close look at what is in the store afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from larder.progress import Reporter
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from services.transform.settings import TransformSettings
from services.transform.transform import transform

SPLITS = ("training", "validation", "evaluation")


@pytest.fixture
def files(picture: Callable[[int], bytes]) -> Callable[..., dict[str, bytes]]:
    """`files(300)`: so many images, named as Food-11's are."""

    def files(count: int, **others: bytes) -> dict[str, bytes]:
        return {f"{SPLITS[n % 3]}/{n % 11}_{n}.jpg": picture(n) for n in range(count)} | others

    return files


@pytest.fixture
def tree(tmp_path: Path, volume: Path) -> Callable[..., dict[str, bytes]]:
    """Makes a tree of these files on the volume. Returns its files by their paths in the tree."""

    def tree(files: Mapping[str, bytes], **settings: str) -> dict[str, bytes]:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        for path, data in files.items():
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


@pytest.fixture
def load(stage: Any, store: Any, bucket: str) -> Callable[..., Any]:
    """Runs the stage against `store` and `bucket`; whatever happens, no secret may be printed."""

    def load(*flags: str, env: Mapping[str, str] | None = None) -> Any:
        settings = store.env | {"S3_BUCKET": bucket} | dict(env or {})
        result = stage("load", *flags, env=settings)
        for secret in {store.secret_key, settings["AWS_SECRET_ACCESS_KEY"] or store.secret_key}:
            assert secret not in result.stdout + result.stderr
        return result

    return load


class InStore:
    """What is in a bucket below Food-11/."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket

    def list(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix="Food-11/")
        return [item["Key"].removeprefix("Food-11/") for page in pages for item in page.get("Contents", ())]

    def read(self, path: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=f"Food-11/{path}")["Body"].read())

    def put(self, path: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"Food-11/{path}", Body=data)

    def delete(self, path: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"Food-11/{path}")

    def data(self) -> dict[str, bytes]:
        """All objects but larder's own."""
        own = self.kept()
        return {path: self.read(path) for path in self.list() if not path.startswith("_larder/") and path not in own}

    def kept(self) -> list[str]:
        """The empty objects that stand in for class folders without images."""
        return [path for path in self.list() if path.endswith("/.keep")]

    def manifest(self) -> dict[str, Any] | None:
        if "_larder/manifest.json" not in self.list():
            return None
        return dict(json.loads(self.read("_larder/manifest.json")))

    def require_whole(self) -> dict[str, str] | None:
        """Follow the manifest as a reader does; each object must be what the index says. Returns sha256 by path."""
        manifest = self.manifest()
        if manifest is None:
            return None
        index = self.read(f"_larder/index-{manifest['index']['sha256']}.jsonl")
        assert hashlib.sha256(index).hexdigest() == manifest["index"]["sha256"]
        found = {line["path"]: line for line in map(json.loads, index.decode().splitlines())}
        for path, line in found.items():
            data = self.read(path)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (line["bytes"], line["sha256"]), path
        assert len(found) == manifest["files"]
        return {path: line["sha256"] for path, line in found.items()}


@pytest.fixture
def there(store: Any, bucket: str) -> InStore:
    """What is in the store."""
    return InStore(store.client, bucket)


@pytest.fixture
def in_bucket() -> type[InStore]:
    """What is in a bucket of another store: `in_bucket(client, "images")`."""
    return InStore
