"""`larder doctor`: a line for each check, and an exit code that tells whether the runner works."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.cli.checks import machine as machine_checks
from larder.cli.checks.result import FAULT, NOTE, OK
from tests.unit.cli.engine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def line_of(text: str, subject: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(subject))


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_every_check_has_a_line_and_nothing_is_made(machine: Machine, runner: str) -> None:
    before = machine.written()
    ended = machine.larder("doctor", f"RUNNER={runner}")
    assert ended.returncode == 0, ended.stdout
    for subject in (
        "engine",
        "disk of the checkout",
        "cores",
        "memory",
        "port of the store",
        "port of JupyterLab",
        "FUSE",
        "GPU",
        "Python",
        ".env",
        "shared memory",
    ):
        assert line_of(ended.stdout, subject)
    assert machine.written() == before


@pytest.mark.parametrize(
    ("said", "words", "state", "text"),
    [
        ("permission denied", (), "fault", "you may not use it"),
        ("permission denied", ("RUNNER=compose",), "fault", "you may not use it"),
        ("permission denied", ("RUNNER=host",), "ok", "not needed"),
        ("Cannot connect to the Docker daemon", (), "note", "stages run as processes"),
        ("Cannot connect to the Docker daemon", ("RUNNER=compose",), "fault", "no container engine answers"),
    ],
)
def test_an_engine_that_cannot_be_used(
    machine: Machine, said: str, words: tuple[str, ...], state: str, text: str
) -> None:
    (machine.engine.bin / "docker").write_text(f"#!/bin/sh\necho {said} >&2; exit 1\n")
    ended = machine.larder("doctor", *words)
    line = line_of(ended.stdout, "engine")
    assert f" {state} " in line
    assert text in line
    assert ended.returncode == (3 if state == "fault" else 0)
    if state != "ok":
        assert " → " in line


@pytest.mark.parametrize(
    ("env_file", "message"),
    [
        ("S3_BUKCET=b\n", "did you mean S3_BUCKET?"),
        ("LARDER_WORKERS=many\nRUNNER=hots\n", "must be a whole number"),
        ("A='never closed\n", ".env"),
    ],
)
def test_wrong_settings_are_one_of_the_faults(machine: Machine, env_file: str, message: str) -> None:
    (machine.root / ".env").write_text(env_file)
    ended = machine.larder("doctor")
    line = line_of(ended.stdout, "settings")
    assert " fault " in line and message in line and " → " in line
    assert line_of(ended.stdout, "memory") and line_of(ended.stdout, "Python")
    assert (ended.returncode, ended.stderr) == (3, "")
    assert machine.larder("status").returncode == 2


def test_without_docker_the_host_runner_is_checked(machine: Machine) -> None:
    (machine.engine.bin / "docker").unlink()
    ended = machine.larder("doctor")
    assert "Docker is not installed" in line_of(ended.stdout, "engine")
    assert "fusermount" in line_of(ended.stdout, "FUSE") or "/dev/fuse" in line_of(ended.stdout, "FUSE")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
    ("version", "state"), [("2.40.3-3", "ok"), ("v2.24.4", "ok"), ("2.20.3", "fault"), ("1.29.2", "fault")]
)
def test_the_compose_plugin_is_new_enough(machine: Machine, version: str, state: str) -> None:
    machine.engine.answer("compose", "version", text=version + "\n")
    ended = machine.larder("doctor")
    assert f" {state} " in line_of(ended.stdout, "compose")
    assert ended.returncode == (3 if state == "fault" else 0)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_of_another_program_is_a_note(machine: Machine, taken: int) -> None:
    ended = machine.larder("doctor", f"LARDER_MINIO_PORT={taken}", f"LARDER_JUPYTER_PORT={taken}")
    for subject, setting in (("port of the store", "LARDER_MINIO_PORT"), ("port of JupyterLab", "LARDER_JUPYTER_PORT")):
        line = line_of(ended.stdout, subject)
        assert f"{taken} is taken by another program" in line
        assert setting in line
    assert ended.returncode == 0


def test_a_port_of_ours_is_fine(machine: Machine, taken: int) -> None:
    machine.engine.answer("ps", text=f"1\tlarder-minio-1\tminio\trunning\t127.0.0.1:{taken}->9000/tcp\n")
    ended = machine.larder("doctor", f"LARDER_MINIO_PORT={taken}")
    assert f"{taken} is used by larder itself" in line_of(ended.stdout, "port of the store")


def test_settings_are_counted_and_not_shown(machine: Machine) -> None:
    (machine.root / ".env").write_text("AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=top-secret\n")
    ended = machine.larder("doctor", "RUNNER=host")
    assert "2 settings, all known" in line_of(ended.stdout, ".env")
    assert "top-secret" not in ended.stdout + ended.stderr


def test_a_gpu_that_containers_do_not_get(machine: Machine) -> None:
    smi = machine.engine.bin / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    smi.chmod(0o755)
    machine.engine.answer("info", having="Runtimes", text='{"runc": {"path": "nvidia"}}\n')
    ended = machine.larder("doctor")
    assert "NVIDIA H200" in ended.stdout
    assert "Docker has no nvidia runtime" in line_of(ended.stdout, "GPU in containers")
    machine.engine.answer("info", having="Runtimes", text='{"runc": {}, "nvidia": {}}\n')
    assert "GPU in containers" not in machine.larder("doctor").stdout


@pytest.mark.parametrize(("kilobytes", "state"), [(16_000_000, OK), (2_000_000, NOTE), (100_000, FAULT)])
def test_memory(tmp_path: Path, kilobytes: int, state: str) -> None:
    table = tmp_path / "meminfo"
    table.write_text(f"MemTotal:       32000000 kB\nMemAvailable:   {kilobytes} kB\n")
    assert machine_checks.check_memory(table).state == state
    assert machine_checks.check_memory(tmp_path / "none").state == OK
