"""Sources in a store, and what an index of them must lead to."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

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
def photos(picture: Callable[[int], bytes]) -> dict[str, bytes]:
    """90 images in three splits and two classes, and what lies between people's files."""
    found = {}
    for split, count in (("train", 50), ("val", 20), ("test", 20)):
        for number in range(count):
            label = ("cat", "dog")[number % 2]
            found[f"{split}/{label}/{label}.{number}.jpg"] = picture(len(found))
    return found | {"README.md": b"photos", "train/cat/Thumbs.db": b"x", "train/.ipynb_checkpoints/1.jpg": b"x",
                    "train/cat/notes": b"none of it"}  # fmt: skip


@pytest.fixture
def put(store: Any, bucket: str) -> Callable[[Files], None]:
    """Puts objects into the bucket."""

    def put(objects: Files) -> None:
        for key, content in objects.items():
            store.client.put_object(Bucket=bucket, Key=key, Body=content)

    return put


@pytest.fixture
def env(store: Any, bucket: str) -> dict[str, str]:
    """The settings that reach the bucket."""
    return store.env | {"S3_BUCKET": bucket}


@pytest.fixture
def objects(store: Any, bucket: str) -> Callable[[str], dict[str, bytes]]:
    """The objects below a folder of the bucket: path and content, without run.json."""

    def objects(folder: str) -> dict[str, bytes]:
        found = {}
        for item in store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", ()):
            path = item["Key"].removeprefix(f"{folder}/")
            if not path.endswith("run.json"):
                found[path] = store.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        return found

    return objects
