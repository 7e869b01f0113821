"""A loopback S3 store for the benchmarks: the embedded server that the host runner uses."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import run_stage
from larder.store import BucketSettings


@contextmanager
def loopback_store(folder: Path) -> Iterator[dict[str, str]]:
    """Start a store with its data in `folder`; gives the settings that reach it."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    settings = {
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "S3_BUCKET": "benchmarks",
        "AWS_ACCESS_KEY_ID": "benchmarks",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "LARDER_STORE_DIR": str(folder),
    }
    run_stage("s3", settings, "--task", "up")
    try:
        yield settings
    finally:
        run_stage("s3", settings, "--task", "down")


def bucket_settings(settings: dict[str, str]) -> BucketSettings:
    """The same as the library takes them."""
    return BucketSettings.load("benchmarks", [], settings)
