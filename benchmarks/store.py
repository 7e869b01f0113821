"""S3 stores on this machine for the benchmarks: the host runner's SeaweedFS, and MinIO where an engine answers."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.harness import ROOT, engine_answers, run_stage
from larder.ports import free_above
from larder.store import BucketSettings

_COMPOSE = ("docker", "compose", "--project-name", "larder-benchmarks", "--file", str(ROOT / "compose/s3.yaml"))
_ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def stores() -> Mapping[str, Callable[[Path], AbstractContextManager[dict[str, str]]]]:
    """Return a function for each store that this machine can run, by name. It starts the store in a folder."""
    return {"SeaweedFS": loopback_store} | ({"MinIO": minio_store} if engine_answers() else {})


@contextmanager
def loopback_store(folder: Path) -> Iterator[dict[str, str]]:
    """Start SeaweedFS with its data in `folder`; yields its settings."""
    [port] = free_above(20_000, 1)  # below the ports of outgoing connections; the store's other ports follow it
    settings = _settings(f"http://127.0.0.1:{port}") | {"LARDER_STORE_DIR": str(folder)}
    run_stage("s3", settings, "--task", "up")
    try:
        yield settings
    finally:
        run_stage("s3", settings, "--task", "down")


@contextmanager
def minio_store(folder: Path) -> Iterator[dict[str, str]]:
    """Start MinIO as `make s3-up` does, with a volume of its own; yields its settings."""
    settings = _settings("")
    environ = os.environ | settings | {"LARDER_MINIO_PORT": "0"}

    def docker(*words: str) -> str:
        return subprocess.run(words, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    docker(*_COMPOSE, "--progress", "quiet", "up", "--detach", "--wait", "minio")
    try:
        address = docker("docker", "inspect", "--format", _ADDRESS, docker(*_COMPOSE, "ps", "--quiet", "minio"))
        settings["S3_ENDPOINT_URL"] = f"http://{address}:9000"
        run_stage("s3", settings, "--task", "bucket")
        yield settings
    finally:
        docker(*_COMPOSE, "--progress", "quiet", "down", "--volumes")


def _settings(endpoint: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "benchmarks", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
    return {"S3_ENDPOINT_URL": endpoint, "S3_BUCKET": "benchmarks"} | keys


def bucket_settings(settings: dict[str, str]) -> BucketSettings:
    """Return the settings as the library takes them."""
    return BucketSettings.load("benchmarks", [], settings)
