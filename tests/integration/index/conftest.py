"""Sources in a store, and the expected results of indexing them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import pytest

from tests.conftest import Store
from tests.integration.conftest import MakePicture

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
    """90 images in three splits and two classes, and what lies between people's files."""
    found = {}
    for split, count in (("train", 50), ("val", 20), ("test", 20)):
        for number in range(count):
            label = ("cat", "dog")[number % 2]
            found[f"{split}/{label}/{label}.{number}.jpg"] = picture(len(found))
    return found | {
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
