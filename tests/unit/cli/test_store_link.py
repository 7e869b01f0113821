"""The link of `s3-up`: which calls it takes, and who names it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from larder.cli.main import parse
from larder.distant.find import make_answer
from larder.distant.link import Link
from tests.conftest import free_ports
from tests.unit.cli.conftest import FrontDoor
from tests.unit.cli.engine import Machine

LINK = ("--filter", "label=com.docker.compose.service=link")
FAR = ("LARDER_S3_LATENCY=20ms", "LARDER_S3_BANDWIDTH=200mbit")


def up(door: FrontDoor, *words: str) -> list[str]:
    """Return the calls of compose that change something."""
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={free_ports(1)[0]}", *words)
    assert ended.code == 0, ended.err
    lines = [" ".join(call["argv"][call["argv"].index("-f") :]) for call in ended.stages if "-f" in call["argv"]]
    return [line for line in lines if {"up", "rm"} & {*line.split()}]


def test_flags_of_s3_up() -> None:
    line = parse(["s3-up", "--latency", "20ms", "--bandwidth=200mbit"], {})
    assert line.given == {"LARDER_S3_LATENCY": "20ms", "LARDER_S3_BANDWIDTH": "200mbit"}
    assert "--latency" in parse(["s3-up", "--help"], {}).page


def test_the_link_has_the_store_s_port_and_is_removed_for_it(door: FrontDoor) -> None:
    assert up(door) == ["-f compose/s3.yaml up -d --wait minio"]
    assert up(door, *FAR) == ["-f compose/distant.yaml up -d --wait link"]
    door.answer(*LINK, out="0123abcd\n")
    assert up(door, "LARDER_S3_BANDWIDTH=1gbit") == ["-f compose/distant.yaml up -d --wait link"]
    assert up(door) == [
        "-f compose/distant.yaml rm --stop --force link",
        "-f compose/s3.yaml up -d --wait minio",
    ]


def test_what_the_link_adds_reaches_compose_and_is_printed(door: FrontDoor) -> None:
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={free_ports(1)[0]}", *FAR)
    [started] = [call for call in ended.stages if "up" in call["argv"]]
    assert (started["env"]["LARDER_S3_LATENCY"], started["env"]["LARDER_S3_BANDWIDTH"]) == ("20ms", "200mbit")
    assert "http://minio:9000 for the project's containers, through a link of 20 ms and 200 Mbit/s" in ended.out


def test_the_link_s_own_port_is_not_taken(door: FrontDoor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        door.answer(*LINK, out="0123abcd\n")
        door.answer("port", "link", out=f"127.0.0.1:{port}\n")
        assert door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={port}").code == 0


def test_a_link_that_does_not_start_shows_both_logs(door: FrontDoor) -> None:
    door.answer("up", "-d", code=1, err="dependency failed to start\n")
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={free_ports(1)[0]}", *FAR)
    assert ended.code == 1
    assert [call["argv"][-1] for call in ended.stages if "logs" in call["argv"]] == ["minio", "link"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("LARDER_S3_LATENCY=20", "LARDER_S3_LATENCY=20 must be a time from 0ms to 10s with its unit, as in 20ms"),
        ("LARDER_S3_LATENCY=-1ms", "as in 20ms"),
        ("LARDER_S3_BANDWIDTH=25MB/s", "LARDER_S3_BANDWIDTH=25MB/s must be bits per second with their unit"),
        ("LARDER_LINK_LATENCY=far", "LARDER_LINK_LATENCY=far must be a time"),
        ("LARDER_LINK_BANDWIDTH=0mbit", "LARDER_LINK_BANDWIDTH=0mbit must be bits per second"),
    ],
)
@pytest.mark.parametrize("command", ["s3-up", "compare"])
def test_other_values_are_refused_before_anything_runs(door: FrontDoor, command: str, word: str, message: str) -> None:
    ended = door.run(command, "RUNNER=compose", word)
    assert ended.code == 2
    assert message in ended.err
    assert not ended.stages


def test_another_store_gets_no_link(door: FrontDoor) -> None:
    ended = door.run("s3-up", "RUNNER=compose", "S3_ENDPOINT_URL=http://store.example", *FAR)
    assert ended.code == 2
    assert "your own store (S3_ENDPOINT_URL), not the one that s3-up starts" in ended.err
    assert "compare has --latency and --bandwidth, too" in ended.err
    assert not [call for call in ended.stages if {"up", "rm", "build"} & {*call["argv"]}]


@contextmanager
def link_of_another(link: Link) -> Iterator[int]:
    """Answer as a link does: the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(make_answer(link))

        thread = Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_status_and_doctor_know_the_link(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.root / ".larder").mkdir()
    (machine.root / ".larder" / "s3-compose.env").write_text("S3_BUCKET=larder\n")
    with link_of_another(Link(0.02, None)) as port:
        containers = (
            "1\tlarder-minio-1\tminio\trunning\t",
            f"2\tlarder-link-1\tlink\trunning\t127.0.0.1:{port}->9000/tcp",
        )
        machine.engine.answer("ps", text="\n".join(containers) + "\n")
        ended = machine.larder("status", LARDER_MINIO_PORT=str(port))
        assert "keys in .larder/s3-compose.env, through a link of 20 ms" in ended.stdout
        ended = machine.larder("doctor", LARDER_MINIO_PORT=str(port))
        assert f"{port} is used by larder itself" in ended.stdout


def test_uninstall_removes_the_link(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    store = machine.root / ".larder" / "store"
    (store / "link").mkdir(parents=True)
    (store / "link" / "log").touch()
    machine.engine.answer("ps", having="label=", text="1\tlarder-link-1\tlink\trunning\t\n")
    machine.engine.answer("network", "ls", text="larder_default\nlarder_behind-link\n")
    ended = machine.larder("uninstall", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert ["rm", "--force", "larder-link-1"] in machine.engine.calls
    assert ["network", "rm", "larder_default", "larder_behind-link"] in machine.engine.calls
    assert not store.exists()
