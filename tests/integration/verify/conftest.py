"""A whole chain, made once by the real stages: an archive, volumes, and all of it in a store. Each test breaks a copy."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[3]
SPLITS = ("training", "validation", "evaluation")
FOLDERS = ("Food-11", "Food-11-webdataset", "Food-11-litdata")
IMAGES = 90


def run(stage: str, *flags: str, **settings: str) -> None:
    """Run a stage that must end well."""
    command = [sys.executable, "-m", f"services.{stage}", *flags]
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LARDER_WORKERS": "1"} | settings
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, picture: Callable[[int], bytes]) -> Path:
    """A folder with `photos.zip` and a volume `mnt` on which all that can be made from it lies."""
    folder = tmp_path_factory.mktemp("chain")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for number in range(IMAGES):
            target.writestr(f"{SPLITS[number % 3]}/{number % 11}_{number}.jpg", picture(number))
    (folder / "photos.zip").write_bytes(stream.getvalue())
    (folder / "mnt").mkdir()
    for stage, *flags in (
        ("extract", f"--source={folder}/photos.zip"), ("transform",), ("shard", "--shard-bytes=30000"),
        ("optimize", "--chunk-bytes=15000"),
    ):  # fmt: skip
        run(stage, *flags, LARDER_VOLUME_DIR=str(folder / "mnt"))
    return folder


class Copy(NamedTuple):
    """A copy of the chain, to break."""

    archive: Path
    volume: Path

    def find(self, pattern: str) -> Path:
        """The first file below the volume that fits a pattern."""
        return sorted(self.volume.glob(pattern))[0]

    def lines(self, path: str) -> list[dict[str, Any]]:
        """A file of JSON lines."""
        return [json.loads(line) for line in (self.volume / path).read_text().splitlines()]

    def manifest(self, folder: str) -> dict[str, Any]:
        """A folder's manifest."""
        return dict(json.loads((self.volume / folder / "_larder/manifest.json").read_bytes()))


@pytest.fixture
def copy(chain: Path, tmp_path: Path) -> Copy:
    """A copy of the chain for one test. Hard links stay what they are."""
    subprocess.run(["cp", "-a", chain, tmp_path / "chain"], check=True)
    return Copy(tmp_path / "chain/photos.zip", tmp_path / "chain/mnt")


class Found(NamedTuple):
    """How a run of verify ended: its report, read from JSON, and what it said."""

    code: int
    report: dict[str, Any]
    stderr: str

    @property
    def verdicts(self) -> dict[str, str]:
        """By the link's name."""
        return {row["link"]: row["verdict"] for row in self.report["links"]}

    def row(self, link: str) -> dict[str, Any]:
        """One link's row."""
        return next(row for row in self.report["links"] if row["link"] == link)


Verify = Callable[..., Found]


@pytest.fixture
def verify(stage: Any, copy: Copy) -> Verify:
    """Runs the stage over the copy: `verify("--sample=0", env=…)`. It must change nothing there."""

    def verify(*flags: str, env: Mapping[str, str] | None = None, workers: int = 1) -> Found:
        settings = {"LARDER_LOG": "json", "LARDER_WORKERS": str(workers), "LARDER_SOURCE": str(copy.archive)}
        ended = stage("verify", *flags, env=settings | dict(env or {}), volume=copy.volume)
        return Found(ended.code, json.loads(ended.stdout) if ended.stdout else {}, ended.stderr)

    return verify


@pytest.fixture(scope="session")
def loaded(store: Any, chain: Path) -> Iterator[dict[str, str]]:
    """The settings of a bucket in `store` that holds the whole chain; emptied and removed at the end."""
    settings = store.env | {"S3_BUCKET": f"larder-test-{uuid.uuid4().hex[:12]}"}
    store.client.create_bucket(Bucket=settings["S3_BUCKET"])
    for folder in FOLDERS:
        run("load", LARDER_VOLUME_DIR=str(chain / "mnt"), LARDER_LOAD=folder, **settings)
    yield settings
    for page in store.client.get_paginator("list_objects_v2").paginate(Bucket=settings["S3_BUCKET"]):
        for item in page.get("Contents", ()):
            store.client.delete_object(Bucket=settings["S3_BUCKET"], Key=item["Key"])
    store.client.delete_bucket(Bucket=settings["S3_BUCKET"])


class There:
    """What is in the bucket; what a test changes is put back after it."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        self._before: dict[str, bytes | None] = {}

    def list(self, below: str) -> list[str]:
        """Every key below a folder."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{below}/")
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        """An object's content."""
        return bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        """Overwrite an object, or add one."""
        self._before.setdefault(key, self.read(key) if key in self.list(key.rpartition("/")[0]) else None)
        self._client.put_object(Bucket=self._bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._before.setdefault(key, self.read(key))
        self._client.delete_object(Bucket=self._bucket, Key=key)

    def put_back(self) -> None:
        """Undo what was done."""
        for key, data in self._before.items():
            if data is None:
                self._client.delete_object(Bucket=self._bucket, Key=key)
            else:
                self._client.put_object(Bucket=self._bucket, Key=key, Body=data)


@pytest.fixture
def there(store: Any, loaded: dict[str, str]) -> Iterator[There]:
    """What is in the store."""
    found = There(store.client, loaded["S3_BUCKET"])
    yield found
    found.put_back()


@pytest.fixture(scope="session")
def flipped() -> Callable[..., bytes]:
    """The same bytes but for one, in the middle or at `at`."""

    def flipped(data: bytes, at: int | None = None) -> bytes:
        at = len(data) // 2 if at is None else at
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flipped
