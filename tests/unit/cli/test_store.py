"""Which store a command uses, and the keys of the one on this machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from larder.cli import local_store
from larder.cli.compose import ComposeRunner
from larder.cli.host import HostRunner
from larder.cli.pipelines import Step
from larder.cli.resolve import resolve
from larder.cli.setting_specs import STORE_SETTINGS
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError, StorageError
from larder.settings import settings_of
from larder.store import StoreSettings
from tests.conftest import free_ports
from tests.unit.cli.conftest import ROOT, FrontDoor


def settings(root: Path, runner: str, environ: dict[str, str] | None = None, **given: str) -> ResolvedSettings:
    return resolve(root, given, environ or {}, root).with_runner(runner)


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_keys_are_made_once(tmp_path: Path, runner: str) -> None:
    resolved = settings(tmp_path, runner)
    local_store.make_keys(resolved)
    file = tmp_path / ".larder" / f"s3-{runner}.env"
    text = file.read_text()
    assert [line.partition("=")[0] for line in text.splitlines()] == [
        "S3_ENDPOINT_URL",
        "S3_BUCKET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ]
    assert (
        f"S3_ENDPOINT_URL={local_store.CONTAINER_ENDPOINT if runner == 'compose' else local_store.HOST_ENDPOINT}\n"
        in text
    )
    assert file.stat().st_mode & 0o777 == 0o600
    local_store.make_keys(resolved)
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    other = tmp_path / "other"
    other.mkdir()
    local_store.make_keys(settings(other, runner))
    assert (other / ".larder" / f"s3-{runner}.env").read_text() != text


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / ".larder" / "s3-host.env"
    file.parent.mkdir()
    file.touch(mode=0o644)
    local_store.make_keys(settings(tmp_path, "host"))
    assert file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600


def test_of_many_at_once_one_makes_the_keys(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from larder.cli.local_store import *; "
        "print(write_once(Path(sys.argv[1]), as_file(new_keys('x'))))"
    )
    file = tmp_path / "keys"
    command = [sys.executable, "-c", program, str(file)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    printed = [process.communicate()[0].strip() for process in started]
    assert sorted(printed) == ["False"] * 5 + ["True"]
    assert len(file.read_text().splitlines()) == 4
    assert os.listdir(tmp_path) == ["keys"]


@pytest.mark.parametrize("name", STORE_SETTINGS)
@pytest.mark.parametrize("way", ["given", "environ", "{}=theirs", "export {}=theirs", "{} = theirs"])
def test_one_setting_makes_it_the_users_store(tmp_path: Path, name: str, way: str) -> None:
    (tmp_path / ".larder").mkdir()
    (tmp_path / ".larder" / "s3-compose.env").write_text("S3_BUCKET=larder\n")
    (tmp_path / ".env").write_text(way.format(name) + "\n" if "=" in way else "")
    given, environ = ({name: "theirs"} if way == origin else {} for origin in ("given", "environ"))
    resolved = settings(tmp_path, "compose", environ, **given)
    assert resolved.store == (name,)
    assert local_store.env_files(resolved) == (Path(".env"),)
    with pytest.raises(ConfigurationError, match=f"the settings name your own store.*{name}"):
        local_store.make_keys(resolved)


def test_both_runners_know_every_name_of_the_stores_address() -> None:
    [setting] = [setting for setting in settings_of(StoreSettings) if setting.field == "s3_endpoint_url"]
    assert setting.names == local_store.ENDPOINT_NAMES
    passed = re.findall(r"^ +(\w+):$", (ROOT / "compose" / "stage.yaml").read_text(), re.MULTILINE)
    assert {*setting.names} <= {*passed}


@pytest.mark.parametrize("name", local_store.ENDPOINT_NAMES)
def test_the_address_of_the_users_store(tmp_path: Path, name: str) -> None:
    assert local_store.endpoint_of(settings(tmp_path, "host", {name: "http://store:9000"})) == "http://store:9000"
    assert local_store.endpoint_of(settings(tmp_path, "host")) == ""


def test_an_empty_setting_is_none(tmp_path: Path) -> None:
    (tmp_path / ".larder").mkdir()
    (tmp_path / ".larder" / "s3-compose.env").write_text("S3_BUCKET=larder\n")
    resolved = settings(tmp_path, "compose", dict.fromkeys(STORE_SETTINGS, ""))
    assert resolved.store == ()
    assert local_store.env_files(resolved) == (Path(".larder/s3-compose.env"),)
    assert "S3_BUCKET" in local_store.masking_variables(resolved)  # else compose would take the empty value


def test_the_users_keys_for_our_store(tmp_path: Path) -> None:
    local_store.make_keys(
        settings(tmp_path, "compose", S3_ENDPOINT_URL=local_store.CONTAINER_ENDPOINT, S3_BUCKET="mine")
    )
    assert not (tmp_path / ".larder").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((StorageError, OSError)):
        local_store.make_keys(settings(tmp_path, "host", LARDER_HOME=str(tmp_path / "file")))


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_two_commands_at_once_agree_on_the_keys(door: FrontDoor, runner: str) -> None:
    [port] = free_ports(1)
    started = [door.start("s3-up", f"RUNNER={runner}", f"LARDER_MINIO_PORT={port}") for _ in range(2)]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err + out
    file = door.root / ".larder" / f"s3-{runner}.env"
    assert len(file.read_text().splitlines()) == (5 if runner == "compose" else 4)  # the port, too
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]
    assert len([call for call in door.calls() if {"up"} & {*call["argv"]}]) == 2


def test_keys_stay_out_of_what_is_printed(door: FrontDoor) -> None:
    [port] = free_ports(1)
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={port}")
    assert ended.code == 0, ended.err
    lines = (door.root / ".larder" / "s3-compose.env").read_text().splitlines()
    for line in lines:
        name, _, value = line.partition("=")
        assert not name.startswith("AWS_") or value not in ended.out + ended.err
    assert "--env-file .larder/s3-compose.env" in ended.out


def test_the_port_is_kept_for_later_commands(door: FrontDoor) -> None:
    first, second = map(str, free_ports(2))
    file = door.root / ".larder" / "s3-compose.env"
    assert (
        f"http://127.0.0.1:{first} for this machine"
        in door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={first}").out
    )
    keys = file.read_text()
    assert keys.endswith(f"\nLARDER_MINIO_PORT={first}\n")
    again = door.run("s3-up", "RUNNER=compose")
    assert f"http://127.0.0.1:{first} for this machine" in again.out
    assert file.read_text() == keys
    door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={second}")
    assert file.read_text() == keys.replace(first, second)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_found_before_keys_are_made(door: FrontDoor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={server.getsockname()[1]}")
    assert ended.code == 3
    assert not (door.root / ".larder").exists()


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_the_line_for_one_s_own_programs_exports_address_and_keys(door: FrontDoor, runner: str) -> None:
    [port] = free_ports(1)
    ended = door.run("s3-up", f"RUNNER={runner}", f"LARDER_MINIO_PORT={port}")
    [line] = [line for line in ended.out.splitlines() if line.startswith("For your own programs: ")]
    shell = subprocess.run(
        ["sh", "-c", f"{line.partition(': ')[2]}; env"],
        cwd=door.root,
        env={},
        check=True,
        capture_output=True,
        text=True,
    )
    exported = dict(variable.split("=", 1) for variable in shell.stdout.splitlines())
    expected = f"http://127.0.0.1:{port}" if runner == "compose" else local_store.HOST_ENDPOINT
    assert exported["S3_ENDPOINT_URL"] == expected
    assert {"S3_BUCKET", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= exported.keys()


@pytest.mark.parametrize("own", [False, True])
def test_the_host_runner_reaches_the_store_of_the_containers(tmp_path: Path, own: bool) -> None:
    local_store.make_keys(settings(tmp_path, "compose"))
    local_store.remember_port(settings(tmp_path, "compose"), "9010")
    if own:
        local_store.make_keys(settings(tmp_path, "host"))
    call = HostRunner(settings(tmp_path, "host")).command(Step("load", "load"))
    assert call.env_files == (Path(f".larder/s3-{'host' if own else 'compose'}.env"),)
    assert call.env.get("S3_ENDPOINT_URL") == (None if own else "http://127.0.0.1:9010")


@pytest.mark.parametrize("name", local_store.ENDPOINT_NAMES)
def test_the_host_runner_translates_the_containers_address(tmp_path: Path, name: str) -> None:
    resolved = settings(tmp_path, "host", {name: local_store.CONTAINER_ENDPOINT}, LARDER_MINIO_PORT="9010")
    assert HostRunner(resolved).command(Step("load", "load")).env["S3_ENDPOINT_URL"] == "http://127.0.0.1:9010"
    resolved = settings(tmp_path, "host", {name: "http://minio.example.org:9000"})
    assert "S3_ENDPOINT_URL" not in HostRunner(resolved).command(Step("load", "load")).env


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_containers_get_their_own_address_of_the_store(tmp_path: Path, host: str) -> None:
    """A shell that has run the line that `s3-up` prints exports this machine's address."""
    before = settings(tmp_path, "compose")
    local_store.make_keys(before)
    local_store.remember_port(before, "9010")
    keys = {"AWS_ACCESS_KEY_ID": "larder", "AWS_SECRET_ACCESS_KEY": "x", "S3_BUCKET": "larder"}
    for port, expected in (("9010", local_store.CONTAINER_ENDPOINT), ("9000", None)):
        resolved = settings(tmp_path, "compose", {**keys, "S3_ENDPOINT_URL": f"http://{host}:{port}"})
        env = ComposeRunner(resolved).command(Step("load", "load")).env
        assert env.get("S3_ENDPOINT_URL") == expected
    local_store.require_own_store(settings(tmp_path, "compose", {**keys, "S3_ENDPOINT_URL": f"http://{host}:9010"}))


def test_a_bucket_alone_says_that_it_is_of_another_store(door: FrontDoor) -> None:
    [port] = free_ports(1)
    assert door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={port}").code == 0
    ended = door.run("s3-check", "RUNNER=compose", "S3_BUCKET=other")
    assert ended.code == 0, ended.err
    assert "S3_BUCKET: a bucket of a store of your own" in ended.err
    assert "set address and keys of .larder/s3-compose.env, too" in ended.err
    [check] = [call for call in ended.stages if "run" in call["argv"]]
    assert check["env"]["AWS_ACCESS_KEY_ID"] == "", "else compose itself would end, with an error of its own"
    assert "a store of your own" not in door.run("s3-check", "RUNNER=compose").err
