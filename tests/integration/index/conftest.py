"""Sources in a store, and the expected results of indexing them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Store
from tests.integration.conftest import MakePicture, Process, ReadObjects, Result, Stage

Files = Mapping[str, bytes]


def tar_of(files: Files, mode: str = "w:") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture(scope="session")
def photos(picture: MakePicture) -> dict[str, bytes]:
    """90 images in three splits and two classes, and other files among them."""
    images: dict[str, bytes] = {}
    for split, count in (("train", 50), ("val", 20), ("test", 20)):
        for number in range(count):
            label = ("cat", "dog")[number % 2]
            images[f"{split}/{label}/{label}.{number}.jpg"] = picture(len(images))
    return images | {
        "README.md": b"photos",
        "train/cat/Thumbs.db": b"x",
        "train/.ipynb_checkpoints/1.jpg": b"x",
        "train/cat/notes": b"none of it",
    }


Put = Callable[[Files], None]


@pytest.fixture
def put(store: Store, bucket: str) -> Put:
    """Puts objects into the bucket."""

    def put(objects: Files) -> None:
        for key, content in objects.items():
            store.client.put_object(Bucket=bucket, Key=key, Body=content)

    return put


@pytest.fixture
def env(store: Store, bucket: str) -> dict[str, str]:
    """The settings that reach the bucket."""
    return store.env | {"S3_BUCKET": bucket}


@dataclass
class BucketStages:
    """A bucket, and stages that read and write there: `stages("index", env={"LARDER_SOURCE": "s3://…"})`."""

    stage: Stage
    store: Store
    bucket: str
    env: dict[str, str]
    """The settings of all stages; `env` of a call is added to them."""
    put: Put
    objects: ReadObjects

    def __call__(self, name: str, *flags: str, env: Mapping[str, str] | None = None, **options: Any) -> Result:
        """Run a stage to its end."""
        return self.stage(name, *flags, env=self.env | dict(env or {}), **options)

    def uri(self, path: str) -> str:
        return f"s3://{self.bucket}/{path}"

    def start(self, name: str, *flags: str) -> Process:
        """Start a stage."""
        return self.stage.start(name, *flags, env=self.env)


@pytest.fixture
def stages(
    stage: Stage, store: Store, bucket: str, env: dict[str, str], put: Put, objects: ReadObjects
) -> BucketStages:
    """Stages whose data are in the bucket."""
    return BucketStages(stage, store, bucket, env, put, objects)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A volume without data."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
