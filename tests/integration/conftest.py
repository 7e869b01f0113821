"""What all integration tests share: stages as real processes, volumes, and a real S3 server."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
import requests
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 120.0


class Result(NamedTuple):
    """How a stage ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of stderr as JSON; for runs with LARDER_LOG=json."""
        return [json.loads(line) for line in self.stderr.splitlines()]


class Stage:
    """Runs `python -m services.<name>` with an environment that holds nothing of the caller's."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume

    def start(
        self, name: str, *flags: str, env: Mapping[str, str] | None = None, volume: Path | None = None,
        prefix: Sequence[str] = (), **options: Any,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """Start a stage; `prefix` is a command that starts it in another place."""
        clean = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        clean |= {"LANG": "C.UTF-8", "LARDER_VOLUME_DIR": str(volume or self.volume)} | dict(env or {})
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", f"services.{name}", *flags], cwd=ROOT, env=clean, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def __call__(self, name: str, *flags: str, **options: Any) -> Result:
        """Run a stage to its end."""
        begin = time.monotonic()
        process = self.start(name, *flags, **options)
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
            process.wait()
        return Result(process.returncode, stdout, stderr, time.monotonic() - begin)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty data volume."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def stage(volume: Path) -> Stage:
    """Runs stages on `volume`: `stage("extract", "--source=sample")`."""
    return Stage(volume)


Kill = Callable[..., None]


@pytest.fixture
def kill_at_random(stage: Stage) -> Kill:
    """Kills a stage `times` times at random moments, and runs it to completion after each.

    `name` and `flags` are the stage's; `flags` may be a function of the round's number. `check` is called after each
    kill and after each completion, with the round's number and whether the run is complete. `seconds` is how long
    an undisturbed run takes: the moments are uniform over it.
    """

    def kill(
        name: str, flags: Callable[[int], Sequence[str]], times: int, seconds: float,
        check: Callable[[int, bool], None], seed: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        moments = random.Random(seed)
        for number in range(times):
            process = stage.start(name, *flags(number), **options)
            try:
                process.wait(moments.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=LIMIT_SECONDS)
            check(number, False)
            result = stage(name, *flags(number), **options)
            assert result.code == 0, result.stderr
            check(number, True)

    return kill


class Store(NamedTuple):
    """A running S3 server."""

    endpoint: str
    access_key: str
    secret_key: str
    client: Any

    @property
    def env(self) -> dict[str, str]:
        """The settings that reach it."""
        return {
            "S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition; fail the test when it doesn't come about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:.0f} s: {what}")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Waits for a condition: `until(lambda: path.exists(), "the file is there")`."""
    return wait_until


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An S3 server on loopback, one per session. Tests use a bucket or a prefix of their own."""
    weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    folder = tmp_path_factory.mktemp("seaweedfs")
    access, secret = "larder-tests", "a-secret-of-the-tests"
    names = ("s3", "master", "volume", "filer")
    ports = free_ports(2 * len(names))
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=False)]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret,
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false",
             "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", *flags],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        endpoint = f"http://127.0.0.1:{ports[0]}"
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
        )  # fmt: skip

        def answers() -> bool:
            if server.poll() is not None:
                pytest.fail(f"the S3 server ended: {(folder / 'log').read_text()[-2000:]}")
            try:
                requests.get(endpoint, timeout=2, proxies={"http": ""})
                client.create_bucket(Bucket="larder-tests-ready")
                client.put_object(Bucket="larder-tests-ready", Key="ready", Body=b"ready")
            except Exception:  # whatever a server says that has not started yet
                return False
            return True

        wait_until(answers, "the S3 server answers")
        yield Store(endpoint, access, secret, client)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def mounts() -> None:
    """What mounts a small disk needs: root, or user namespaces, which some systems keep from ordinary users."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", *user, "mount", "-t", "tmpfs", "larder", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        why = f"no file system can be mounted here ({tried.stderr.strip()}); tests/containers fills a disk, too"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)
