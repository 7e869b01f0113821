"""make s3-up, s3-check and s3-down with a container engine, as a user runs them in a fresh checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from larder.distant.find import find_link
from larder.distant.link import Link
from tests.conftest import free_ports

Run = Callable[..., "subprocess.CompletedProcess[str]"]
KEYS = Path(".larder/s3-compose.env")


@pytest.fixture
def make(run: Run, checkout: Path) -> Iterator[Run]:
    """Runs make in the checkout, with its own compose project and port. All of it is removed at the end."""
    own = {"COMPOSE_PROJECT_NAME": f"larder-test-{uuid.uuid4().hex[:8]}", "LARDER_MINIO_PORT": str(free_ports(1)[0])}

    def make(*words: str, command: tuple[str, ...] = ("make",), **settings: str) -> subprocess.CompletedProcess[str]:
        return run(*command, *words, folder=checkout, **({"RUNNER": "compose"} | own | settings))

    yield make
    (checkout / ".env").unlink(missing_ok=True)
    assert make("clean-s3", "YES=1").returncode == 0
    left = ("--all", "--quiet", "--filter", f"label=com.docker.compose.project={own['COMPOSE_PROJECT_NAME']}")
    assert run("docker", "ps", *left, check=True).stdout == ""
    assert run("docker", "volume", "ls", *left[1:], check=True).stdout == ""


def keys_of(checkout: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (checkout / KEYS).read_text().splitlines())


def client_of(endpoint: str, keys: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )


def test_up_check_down_and_up_again(make: Run, checkout: Path) -> None:
    ended = make("s3-up", S3_BUCKET="")  # an empty variable is not set
    assert ended.returncode == 0, ended.stderr
    address = re.search(r"http://127\.0\.0\.1:\d+", ended.stdout)
    assert address
    assert "http://minio:9000" in ended.stdout
    assert f"--env-file {KEYS}" in ended.stdout
    assert "Next: make" in ended.stdout
    assert (checkout / KEYS).stat().st_mode & 0o777 == 0o600
    keys = keys_of(checkout)
    runs = [ended]
    client = client_of(address[0], keys)
    client.put_object(Bucket="larder", Key="kept", Body=b"content")

    for target in ("s3-check", "s3-up", "s3-bucket", "s3-down"):
        runs.append(make(target))
        assert runs[-1].returncode == 0, runs[-1].stderr
    assert len([line for line in runs[1].stdout.splitlines() if line.startswith("ok ")]) == 13
    assert "already there" in runs[2].stderr
    assert keys_of(checkout) == keys

    stopped = make("s3-check")
    assert stopped.returncode == 2
    assert "is not running" in stopped.stdout
    assert "run `make s3-up`" in stopped.stdout
    runs += [stopped, make("s3-up")]
    client = client_of(address[0], keys)
    assert client.get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"
    for one in runs:
        assert keys["AWS_SECRET_ACCESS_KEY"] not in one.stdout + one.stderr


READ = """\
import boto3, os
client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"], region_name="us-east-1")
print(client.get_object(Bucket=os.environ["S3_BUCKET"], Key="kept")["Body"].read().decode())
"""


def test_a_program_of_one_s_own_reads_from_it(make: Run, checkout: Path) -> None:
    ended = make("s3-up")
    address = re.search(r"http://127\.0\.0\.1:\d+", ended.stdout)
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("For your own programs: ")]
    assert address
    client_of(address[0], keys_of(checkout)).put_object(Bucket="larder", Key="kept", Body=b"content")
    shell = ["sh", "-c", f'{line.partition(": ")[2]}; "$0" -c "$1"', sys.executable, READ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    assert subprocess.check_output(shell, cwd=checkout, env=environ, text=True) == "content\n"


def test_a_link_comes_changes_and_goes_without_losing_objects(make: Run, checkout: Path) -> None:
    assert make("s3-up").returncode == 0
    keys = keys_of(checkout)
    ended = make("s3-up", "LARDER_S3_LATENCY=50ms", "LARDER_S3_BANDWIDTH=200mbit")
    assert ended.returncode == 0, ended.stderr
    assert "through a link of 50 ms and 200 Mbit/s" in ended.stdout
    address = re.search(r"http://127\.0\.0\.1:\d+", ended.stdout)
    assert address
    assert find_link(address[0]) == Link(0.05, 200_000_000)
    client = client_of(address[0], keys)
    client.put_object(Bucket="larder", Key="kept", Body=b"content")
    began = time.monotonic()
    for _ in range(4):
        assert client.get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"
    assert time.monotonic() - began >= 4 * 0.05  # how much more depends on the machine
    checked = make("s3-check")
    assert checked.returncode == 0, checked.stdout
    assert "through a link of 50 ms and 200 Mbit/s" in checked.stdout
    assert len([line for line in checked.stdout.splitlines() if line.startswith("ok ")]) == 13
    assert "through a link of 50 ms and 200 Mbit/s" in make("status").stdout
    assert keys_of(checkout) == keys

    assert make("s3-up", "LARDER_S3_LATENCY=5ms").returncode == 0
    assert find_link(address[0]) == Link(0.005, None)
    assert make("s3-up").returncode == 0
    assert find_link(address[0]) is None
    assert client_of(address[0], keys).get_object(Bucket="larder", Key="kept")["Body"].read() == b"content"
    assert make("s3-up", "LARDER_S3_LATENCY=5ms").returncode == 0
    assert make("s3-down").returncode == 0
    left = make(
        "ps", "--all", "--quiet", command=("docker", "compose", "-f", "compose/distant.yaml"), AWS_ACCESS_KEY_ID=""
    )
    assert left.stdout == ""


def test_made_up_keys_go_with_no_setting_of_a_users_store(make: Run, checkout: Path) -> None:
    assert make("s3-keys").returncode == 0
    (checkout / ".env").write_text("LARDER_LOG=json\nS3_BUCKET='food'\n")
    ended = make("s3-bucket")
    assert ended.returncode != 0
    assert "S3_BUCKET: a bucket of a store of your own" in ended.stderr
    assert "no credentials for AWS" in ended.stderr  # the generated key isn't sent there
    refused = make("s3-up")
    assert refused.returncode != 0
    assert "(S3_BUCKET)" in refused.stderr


@pytest.mark.exhaustive
def test_keys_of_the_users_own_choice(make: Run, checkout: Path) -> None:
    secret = uuid.uuid4().hex
    (checkout / ".env").write_text(
        f"S3_ENDPOINT_URL=http://minio:9000\nAWS_ACCESS_KEY_ID=mine\nAWS_SECRET_ACCESS_KEY={secret}\nS3_BUCKET=food\n"
    )
    for target in ("s3-up", "s3-check"):
        ended = make(target)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert secret not in ended.stdout + ended.stderr
    assert "s3://food at http://minio:9000 is fine" in ended.stderr
    assert not (checkout / KEYS).exists()


def test_without_a_store_check_says_how_to_get_one(make: Run) -> None:
    ended = make("s3-check")
    assert ended.returncode == 2
    assert "make s3-up" in ended.stderr


def test_a_server_that_does_not_start_says_why(make: Run) -> None:
    ended = make(
        "s3-up",
        S3_ENDPOINT_URL="http://minio:9000",
        AWS_ACCESS_KEY_ID="mine",
        AWS_SECRET_ACCESS_KEY="short",
        S3_BUCKET="food",
    )
    assert ended.returncode != 0
    assert "length at least 8" in ended.stderr


def test_the_command_without_make_uses_the_keys_and_has_few_rights(make: Run, run: Run, checkout: Path) -> None:
    (checkout / ".env").write_text("LARDER_LOG=json\n")
    up = make("s3-up")
    assert up.returncode == 0, up.stderr
    [line] = [line for line in up.stdout.splitlines() if line.startswith("Without make: ")]
    assert f"--env-file .env --env-file {KEYS} " in line, "the user's settings count, too"
    assert line.endswith(" -f compose/load.yaml run --rm --no-deps load")
    compose = ("docker", "compose", "--env-file", str(KEYS), "-f", "compose/s3.yaml", "run", "--rm", "s3")
    ended = make("--task", "check", command=compose)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert keys_of(checkout)["AWS_SECRET_ACCESS_KEY"] not in ended.stdout + ended.stderr

    listed = make(
        "ps", "--quiet", "minio", command=("docker", "compose", "-f", "compose/s3.yaml"), AWS_ACCESS_KEY_ID=""
    )
    container = listed.stdout.strip()
    status = run("docker", "exec", container, "cat", "/proc/1/status", check=True).stdout
    assert re.search(r"^CapEff:\t0000000000000000$", status, re.MULTILINE), "it is root without rights"
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert run("docker", "exec", container, "touch", "/usr/x").returncode != 0
    ports = json.loads(run("docker", "inspect", container, check=True).stdout)[0]["NetworkSettings"]["Ports"]
    assert {one["HostIp"] for published in ports.values() for one in published or ()} == {"127.0.0.1"}


NOTING = """#!/bin/sh
printf '%s\\n' "$0 $*" >>"{trace}"
exec {program} "$@"
"""


@pytest.mark.exhaustive
def test_no_secret_in_any_command_line(make: Run, checkout: Path, tmp_path: Path) -> None:
    trace, noting = tmp_path / "programs", tmp_path / "noting"
    noting.mkdir()
    for name in ("docker", "git", "python3"):  # all that the targets start
        (noting / name).write_text(NOTING.format(trace=trace, program=shutil.which(name)))
        (noting / name).chmod(0o755)
    for target in ("s3-up", "s3-check", "s3-down"):
        assert make(target, PATH=f"{noting}:{os.environ['PATH']}").returncode == 0
    keys = keys_of(checkout)
    text = trace.read_text()
    assert "docker compose --env-file .larder/s3-compose.env -f compose/s3.yaml up" in text
    assert keys["AWS_SECRET_ACCESS_KEY"] not in text
    assert keys["AWS_ACCESS_KEY_ID"] not in text


def test_two_checkouts_have_two_stores(run: Run, checkout: Path, tmp_path: Path) -> None:
    """The first keeps the plain project name; the second gets a project, keys and a store of its own."""
    second = tmp_path / "second"
    shutil.copytree(checkout, second, symlinks=True)
    own = {"XDG_STATE_HOME": str(tmp_path / "state"), "COMPOSE_PROJECT_NAME": "", "RUNNER": "compose"}
    dry = ("python3", "-m", "larder", "--dry-run", "s3-up")
    first = run(*dry, folder=checkout, check=True, **own).stdout
    other = run(*dry, folder=second, check=True, **own).stdout
    assert " -p " not in first
    assert re.search(r"docker compose -p larder-[0-9a-f]{8} --env-file", other)
    shutil.rmtree(checkout)
    assert " -p " not in run(*dry, folder=second, check=True, **own).stdout
