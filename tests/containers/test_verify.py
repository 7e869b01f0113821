"""make verify in containers: it mounts volumes and archive read-only, creates none, and reads the store."""

from __future__ import annotations

import io
import subprocess
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from larder import __version__
from tests.conftest import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SPLITS = ("training", "validation", "evaluation")


@pytest.fixture
def photos(checkout: Path) -> Path:
    """An archive under a name with a space."""
    path = checkout / "my photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(33):
            stream = io.BytesIO()
            Image.new("RGB", (20 + number, 32), (90, 40, 7)).save(stream, "JPEG")
            archive.writestr(f"Food-11/{SPLITS[number % 3]}/{number // 3}_{number}.jpg", stream.getvalue())
    path.chmod(0o644)
    return path


def results(stdout: str) -> list[str]:
    return [line[:12].strip() for line in stdout.splitlines()]


def test_an_archive_and_its_tree(run: Run, checkout: Path, data_volume: str, photos: Path) -> None:
    settings = {"RUNNER": "compose", "LARDER_SOURCE": photos.name}
    run("make", "etl-local", folder=checkout, check=True, **settings)
    ended = run("make", "verify", folder=checkout, check=True, **settings)
    assert results(ended.stdout) == ["ok"] * 3 + ["not there"] * 2 + ["not followed"] * 3
    assert "33 of 33 files" in ended.stdout.splitlines()[0]
    volumes = subprocess.check_output(["docker", "volume", "ls", "--quiet"], text=True).split()
    assert data_volume in volumes
    assert f"{data_volume}_wds" not in volumes and f"{data_volume}_lit" not in volumes

    photos.unlink()
    ended = run("make", "verify", folder=checkout, check=True, **settings)
    assert results(ended.stdout) == ["not followed", "ok", "ok"] + ["not there"] * 2 + ["not followed"] * 3


@pytest.mark.exhaustive
def test_to_the_store_and_a_break(
    run: Run, checkout: Path, data_volume: str, minio: dict[str, Any], minio_server: Store
) -> None:
    bucket = f"larder-test-{uuid.uuid4().hex[:12]}"
    minio_server.client.create_bucket(Bucket=bucket)
    settings = {
        "RUNNER": "compose",
        "LARDER_SOURCE": "sample",
        "LARDER_SAMPLE_IMAGES": "60",
        "S3_BUCKET": bucket,
        "S3_ENDPOINT_URL": minio["published"],
        "AWS_ACCESS_KEY_ID": minio["key"],
        "AWS_SECRET_ACCESS_KEY": minio["secret"],
    }
    for target in ("etl-local", "etl-load", "etl-wds"):
        run("make", target, folder=checkout, check=True, **settings)
    ended = run("make", "verify", folder=checkout, check=True, **settings)
    assert results(ended.stdout) == ["ok"] * 4 + ["not there"] + ["ok"] * 2 + ["not there"]

    damage = "printf x | dd of=/wds/Food-11-webdataset/training/shard-000000.tar bs=1 seek=9000 conv=notrunc"
    run(
        "docker",
        "run",
        "--rm",
        "-v",
        f"{data_volume}_wds:/wds",
        "--entrypoint",
        "sh",
        f"larder-verify:{__version__}",
        "-c",
        damage,
        check=True,
    )
    ended = run("make", "verify", folder=checkout, **settings)
    assert "Error 3" in ended.stderr
    assert "the chain breaks at shards: the bytes of an image have changed" in ended.stderr
    assert "/wds/Food-11-webdataset/training/shard-000000.tar, bytes " in ended.stderr
    assert minio["secret"] not in ended.stdout + ended.stderr
