"""Shards and chunks by make, and the commands that remove them."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder import __version__
from tests.conftest import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = {"RUNNER": "compose", "LARDER_SOURCE": "sample", "LARDER_SAMPLE_IMAGES": "60"}
PIPELINES = {"wds": "Food-11-webdataset", "lit": "Food-11-litdata"}


@pytest.fixture
def settings(minio: dict[str, Any], minio_server: Store) -> dict[str, str]:
    """A store with an empty bucket."""
    bucket = f"larder-test-{uuid.uuid4().hex[:12]}"
    minio_server.client.create_bucket(Bucket=bucket)
    return SMALL | {
        "S3_ENDPOINT_URL": minio["published"],
        "AWS_ACCESS_KEY_ID": minio["key"],
        "AWS_SECRET_ACCESS_KEY": minio["secret"],
        "S3_BUCKET": bucket,
    }


def volumes() -> set[str]:
    return set(subprocess.check_output(["docker", "volume", "ls", "--quiet"], text=True).split())


@pytest.mark.parametrize("pipeline", [pytest.param("lit", marks=pytest.mark.exhaustive), "wds"])
def test_packed_loaded_and_removed(
    run: Run, checkout: Path, settings: dict[str, str], data_volume: str, pipeline: str, minio_server: Store
) -> None:
    volume, folder = f"{data_volume}_{pipeline}", PIPELINES[pipeline]
    make = ("make", f"clean-{pipeline}")
    run("make", "etl-local", folder=checkout, check=True, **settings)
    run(
        "docker",
        "compose",
        "-f",
        f"compose/{pipeline}.yaml",
        "run",
        "--rm",
        "shard" if pipeline == "wds" else "optimize",
        folder=checkout,
        check=True,
        **settings,
    )
    kept = run(*make, "YES=1", folder=checkout, **settings)
    assert kept.returncode != 0
    assert f"kept {volume}" in kept.stderr
    assert volume in volumes()

    loaded = run("make", f"etl-{pipeline}", folder=checkout, check=True, **settings)
    assert f"objects in s3://{settings['S3_BUCKET']}/{folder}" in loaded.stderr
    listed = minio_server.client.list_objects_v2(Bucket=settings["S3_BUCKET"], Prefix=f"{folder}/_larder/manifest.json")
    assert listed["KeyCount"] == 1

    ended, user = f"{volume}-ended", f"larder-test-{uuid.uuid4().hex[:8]}"
    once = ("--label", "com.docker.compose.oneoff=True", "--entrypoint", "true")  # `docker compose run` without --rm
    here = ("--label", f"com.docker.compose.project.working_dir={checkout.resolve() / 'compose'}")
    image = ("-v", f"{volume}:/mnt", f"larder-extract:{__version__}")
    run("docker", "run", "--name", ended, *once, *here, *image, check=True)
    run("docker", "run", "--name", user, *once, *image, check=True)  # of another program
    try:
        refused = run(*make, "YES=1", folder=checkout, **settings)
        assert refused.returncode != 0
        assert f"docker rm --force {user}`" in refused.stderr
        assert ended not in refused.stderr
        assert volume in volumes()
    finally:
        run("docker", "rm", user, check=True)

    asked = run(*make, folder=checkout, **settings)
    assert asked.returncode != 0, "nobody answers"
    assert f"Remove the compose volume {volume}? The store has all of it, verified just now." in asked.stderr
    assert volume in volumes()
    assert run(*make, "YES=1", folder=checkout, **settings).returncode == 0
    assert volume not in volumes()
    assert data_volume in volumes()
    again = run(*make, "YES=1", folder=checkout, **settings)
    assert again.returncode == 0
    assert "nothing to remove" in again.stderr


@pytest.fixture
def loaded(run: Run, checkout: Path, settings: dict[str, str], own_project: dict[str, str]) -> dict[str, str]:
    """Shards and chunks in the store, and settings to measure them."""
    settings = settings | own_project | {"LARDER_BATCH_SIZE": "8", "LARDER_WARMUP_BATCHES": "1"}
    run("make", "etl-local", folder=checkout, check=True, **settings)
    for pipeline in PIPELINES:
        run("make", f"etl-{pipeline}", folder=checkout, check=True, **settings)
    return settings


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.mark.exhaustive
def test_measured(run: Run, checkout: Path, loaded: dict[str, str], tmp_path: Path) -> None:
    """Measure with the library's loader of shards, and as another user with a cache; test_readme.py has the rest."""
    run("make", "bench", "ARM=webdataset", folder=checkout, check=True, **loaded, LARDER_WEBDATASET_LOADER="webdataset")
    [record] = records(checkout / "results")
    assert record["settings"]["webdataset_loader"] == "webdataset"
    assert record["network_bytes"] > record["dataset"]["bytes"]["training"]

    user, results, cache = "4321", tmp_path / "results", tmp_path / "cache"
    results.mkdir()
    results.chmod(0o777)
    compose = ("docker", "compose", "-f", "compose/bench.yaml", "run", "--rm", "bench", "--arm", "litdata_streaming")
    by_hand = loaded | {"LARDER_UID": user, "LARDER_GID": user, "LARDER_RESULTS": str(results)}
    table = run(*compose, folder=checkout, check=True, **by_hand).stdout
    assert "\npass                  cold            warm\n" in table
    [record] = records(results)
    assert record["network_bytes"] > record["then"][0]["network_bytes"] == 0
    assert record["images"] == record["then"][0]["images"] == record["dataset"]["samples"]["training"]
    assert record["settings"]["cache_dir"] == "/cache"
    assert record["provenance"]["in_container"]

    cache.mkdir()
    refused = run(*compose, folder=checkout, **by_hand, LARDER_CACHE_DIR=str(cache))
    assert refused.returncode == 3
    assert "LARDER_CACHE_DIR='/cache' can't be used" in refused.stderr
    run("make", "bench", "ARM=litdata_streaming", folder=checkout, check=True, **by_hand, LARDER_CACHE_DIR=str(cache))
    assert (cache / ".larder-litdata.lock").stat().st_uid == int(user)
    assert [path.name for path in cache.iterdir()] == [".larder-litdata.lock"]


def test_straight_into_the_store(
    run: Run, checkout: Path, settings: dict[str, str], minio_server: Store, data_volume: str
) -> None:
    run("make", "etl-local", folder=checkout, check=True, **settings)
    dest = f"s3://{settings['S3_BUCKET']}/Food-11-webdataset"
    ended = run("make", "etl-wds", f"LARDER_DEST={dest}", folder=checkout, check=True, **settings)
    assert "60 images in 3 files" in ended.stderr
    listed = minio_server.client.list_objects_v2(Bucket=settings["S3_BUCKET"])["Contents"]
    assert len([item for item in listed if item["Key"].endswith(".tar")]) == 3
    assert "next: `make bench ARM=webdataset`" in ended.stderr
    cleaned = run("make", "clean", "YES=1", folder=checkout, check=True, **settings)
    assert "it was empty" in cleaned.stderr
    assert f"{data_volume}_wds" not in volumes()
