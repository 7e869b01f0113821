"""Invalid input: every message has at most three lines, with the next step."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.cli import process, runner
from larder.cli.resolve import resolve
from larder.errors import ConfigurationError
from tests.unit.cli.conftest import Ended, FrontDoor

REFUSED = (
    "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
    '"http://x": dial unix /var/run/docker.sock: connect: permission denied\n'
)
NOT_RUNNING = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"


def assert_reported(ended: Ended, *message: str, code: int = 2) -> None:
    """Check that the message has at most three lines and a next step, and that nothing was started or printed."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    error = ended.err[ended.err.index("error: ") :]
    assert len(error.splitlines()) <= 3, error
    assert "next step: " in error
    for text in message:
        assert text in error
    assert not [call for call in ended.calls if {"run", "up", "build", "-m"} & {*call["argv"]}]


def test_docker_without_permission_is_no_reason_for_the_host_runner(door: FrontDoor) -> None:
    door.answer("version", code=1, err=REFUSED)
    for stdin in (None, "\n", "n\n", "what?\n"):
        ended = door.run("etl-local", stdin=stdin)
        assert_reported(ended, "Docker is installed, but you may not use it", "usermod -aG docker", "RUNNER=host")
    ended = door.run("etl-local", stdin="y\n")
    assert ended.code == 0
    assert ended.err.count("you may not use it") == 1
    assert "services.extract" in ended.stages[1]["argv"]
    assert_reported(door.run("etl-local", "RUNNER=compose", stdin="y\n"), "RUNNER=compose, but Docker is installed")
    assert door.run("etl-local", "RUNNER=host").code == 0


def test_docker_without_compose(door: FrontDoor) -> None:
    door.answer("compose", "version", code=1, err="docker: 'compose' is not a docker command.\n")
    assert_reported(door.run("etl-local"), "Docker has no compose plugin", "docker-compose-plugin", "RUNNER=host")
    assert_reported(door.run("etl-local", "RUNNER=compose"), "RUNNER=compose, but Docker has no compose plugin")


def test_an_engine_that_does_not_answer(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    door.answer("version", seconds=60.0)
    monkeypatch.setattr(runner, "ENGINE_SECONDS", 0.3)
    monkeypatch.setattr(sys, "stdin", None)
    settings = resolve(door.root, {}, door.environ, door.root)
    with pytest.raises(ConfigurationError, match="the container engine does not answer") as caught:
        runner.choose(settings)
    assert "RUNNER=host" in caught.value.next_step
    with pytest.raises(ConfigurationError, match="RUNNER=compose, but the container engine does not answer"):
        runner.choose(resolve(door.root, {"RUNNER": "compose"}, door.environ, door.root))


@pytest.mark.parametrize(
    "said",
    [
        NOT_RUNNING,
        "error during connect: Get http://x: dial tcp: lookup nowhere: no such host\n",
        "failed to connect to the docker API at unix:///x; check if the path is correct: dial unix /x: connect: no such file or "  # noqa: E501
        "directory\n",
        "dial tcp 127.0.0.1:1: connect: connection refused\n",
    ],
)
def test_a_daemon_that_is_not_running_means_the_host_runner(door: FrontDoor, said: str) -> None:
    door.answer("version", code=1, err=said)
    ended = door.run("etl-local", "LARDER_SOURCE=sample")
    assert ended.code == 0, ended.err
    assert ended.err.splitlines()[0] == "no container engine answers: the stages run as processes"
    assert ended.err.splitlines()[1].startswith("runner: host (")
    assert_reported(
        door.run("etl-local", "RUNNER=compose"), "RUNNER=compose, but no container engine answers", "start Docker"
    )


def test_no_docker_at_all(door: FrontDoor) -> None:
    (door.bin / "docker").unlink()
    ended = door.run("etl-local")
    assert ended.code == 0, ended.err
    assert "Docker is not installed: the stages run as processes" in ended.err
    assert_reported(
        door.run("etl-local", "RUNNER=compose"), "RUNNER=compose, but Docker is not installed", "install Docker"
    )


def test_neither_docker_nor_a_new_enough_python(door: FrontDoor) -> None:
    (door.bin / "docker").unlink()
    shutil.rmtree(door.root / ".venv")
    old = door.bin / "old"
    old.write_text("#!/bin/sh\nexit 1\n")  # asked whether it is new enough
    old.chmod(0o755)
    (door.bin / "python3").unlink()
    code = f"import sys; sys.executable = {str(old)!r}; from larder.cli.main import main; sys.exit(main())"
    ended = door.run("etl-local", through=(sys.executable, "-c", code))
    assert_reported(ended, "needs Python 3.11 or newer", "or Docker")
    assert "Docker is not installed: the stages run as processes" in ended.err
    assert not (door.root / ".venv").exists()


def test_an_engine_that_says_something_else(door: FrontDoor) -> None:
    door.answer("version", code=1, err="\x1b[31mclient version 9 is too new\x1b[0m\nmore\n")
    ended = door.run("etl-local")
    assert_reported(ended, "client version 9 is too new", "RUNNER=host")
    assert "\x1b" not in ended.err
    door.answer("version", code=1)
    assert_reported(door.run("etl-local"), "Docker can't be used: no message")


def test_a_docker_that_cannot_be_started(door: FrontDoor) -> None:
    (door.bin / "docker").write_text("not a program")
    assert_reported(door.run("etl-local"), "Docker can't be used", "RUNNER=host")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"S3_BUCKET=\xff\n", ".env: it is not UTF-8"),
        (b"what is this the-secret\n", ".env, line 1: expected NAME=value"),
        (b"A=1\nB='the-secret\n", ".env, line 2: the quote ' is not closed"),
        (b"A=${the-secret\n", ".env, line 1: invalid"),
        (b"\nA=${B:?the-secret}\n", ".env, line 2: B is required"),
        (b"%=the-secret\n", ".env, line 1: a name"),
    ],
)
def test_an_env_file_that_is_none(door: FrontDoor, content: bytes, message: str) -> None:
    (door.root / ".env").write_bytes(content)
    for words in (("etl-local", "RUNNER=host"), ("s3-check", "RUNNER=compose"), ("demo",)):
        ended = door.run(*words)
        assert_reported(ended, message)
        assert "the-secret" not in ended.err
        assert not ended.calls


def test_an_env_file_that_cannot_be_read(door: FrontDoor) -> None:
    (door.root / ".env").mkdir()
    assert_reported(door.run("etl-local"), ".env: Is a directory")
    (door.root / ".env").rmdir()
    (door.root / ".env").write_text("A=1\n")
    (door.root / ".env").chmod(0)
    drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    through = () if os.geteuid() else (*drop, *door.command)
    if through and not shutil.which("setpriv"):
        return
    ended = door.run("etl-local", through=through, PATH=f"{door.bin}:/usr/bin:/bin")
    assert_reported(ended, ".env: Permission denied")


def test_help_needs_no_env_file(door: FrontDoor) -> None:
    (door.root / ".env").write_bytes(b"\xff")
    assert door.run("--help").code == 0
    assert door.run("etl-local", "--help").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("etl-lcoal",), "no such command: etl-lcoal; did you mean etl-local?"),
        (("bench", "arm=webdataset"), "did you mean ARM?"),
        (("etl-load", "S3_BUKCET=foo"), "did you mean S3_BUCKET?"),
        (("bench", "ARM=webdatset"), "did you mean webdataset?"),
        (("bench", "LARDER_ARM=webdatset"), "did you mean webdataset?"),
        (("train", "ARM=x"), "ARM=x is unknown"),
        (("etl-local", "photos.zip"), "etl-local takes no word 'photos.zip'"),
        (("etl-local", "--sorce=x"), "did you mean --source?"),
        (("etl-local", "RUNNER=podman"), "RUNNER=podman is unknown: it must be compose or host"),
        (("build", "extrat"), "there is no stage extrat"),
        (("venv", "x"), "there is no stage x"),
    ],
)
def test_unknown_words(door: FrontDoor, words: tuple[str, ...], message: str) -> None:
    assert_reported(door.run(*words), message)


def test_a_target_that_make_does_not_know(door: FrontDoor) -> None:
    ended = door.run("bnech", "S3_PREFIX=x", through=("make",))
    assert ended.code == 2
    assert "no such command: bnech; did you mean bench?\n  next step: make help" in ended.err


def test_an_unknown_arm_of_the_environment(door: FrontDoor) -> None:
    assert_reported(door.run("bench", ARM="webdatset"), "ARM=webdatset is unknown; did you mean webdataset?")


@pytest.mark.parametrize("way", ["make", "larder"])
@pytest.mark.parametrize(
    "words", [("bench", "arm=webdataset"), ("etl-load", "S3_BUKCET=foo"), ("etl-wds", "larder_source=x")]
)
def test_a_misspelt_setting_starts_nothing(door: FrontDoor, way: str, words: tuple[str, ...]) -> None:
    ended = door.run(*words, through=("make",) if way == "make" else ())
    assert ended.code == 2
    assert "no such setting" in ended.err
    assert not ended.calls


@pytest.mark.parametrize("runner", ["compose", "host"])
@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 130, 137])
def test_a_stages_exit_code_reaches_the_caller(door: FrontDoor, runner: str, code: int) -> None:
    door.answer("run" if runner == "compose" else "services.shard", code=code)
    ended = door.run("etl-wds", f"RUNNER={runner}", "LARDER_DEST=s3://bucket/x")
    assert ended.code == code
    assert "Traceback" not in ended.err


def test_the_first_stage_that_fails_is_the_last_that_runs(door: FrontDoor) -> None:
    door.answer("reach", code=5)
    ended = door.run("etl-wds", "RUNNER=host")
    assert ended.code == 5
    assert [call["argv"][2:] for call in ended.stages][-1] == [
        "services.load",
        "--task",
        "reach",
        "--folder",
        "webdataset",
    ]
    assert "services.shard" not in str(ended.calls)


def test_a_build_that_fails(door: FrontDoor) -> None:
    door.answer("build", code=17)
    ended = door.run("etl-local", "RUNNER=compose")
    assert ended.code == 17
    assert not [call for call in ended.stages if "run" in call["argv"]]


def test_a_virtual_environment_that_is_gone(door: FrontDoor) -> None:
    (door.root / ".venv" / "bin" / "python").write_text("#!/no/such/python\n")
    ended = door.run("etl-local", "RUNNER=host", "--yes")
    assert ended.code in (2, 3, 5)
    assert "Traceback" not in ended.err
    assert "next step: " in ended.err


# --- ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_s3_up_on_a_taken_port(door: FrontDoor, taken: int) -> None:
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={taken}")
    assert_reported(
        ended,
        f"LARDER_MINIO_PORT={taken} is taken by another program",
        "larder s3-up LARDER_MINIO_PORT=",
        code=3,
    )
    suggested = re.search(r"s3-up LARDER_MINIO_PORT=(\d+) RUNNER=compose", ended.err)
    assert suggested
    assert int(suggested[1]) != taken


def test_s3_up_on_its_own_port(door: FrontDoor, taken: int) -> None:
    door.answer("port", "minio", out=f"127.0.0.1:{taken}\n")
    ended = door.run("s3-up", "RUNNER=compose", f"LARDER_MINIO_PORT={taken}")
    assert ended.code == 0, ended.err
    assert [call for call in ended.stages if "up" in call["argv"]]


def test_jupyter_on_a_taken_port(door: FrontDoor, taken: int) -> None:
    """Running programs stay: another program, or JupyterLab on its old port."""
    for published in ("", "127.0.0.1:8888\n"):
        door.answer("port", "jupyter", out=published)
        ended = door.run("jupyter", "RUNNER=compose", f"LARDER_JUPYTER_PORT={taken}")
        assert ended.code == 3
        assert f"LARDER_JUPYTER_PORT={taken} is taken by another program" in ended.err
        assert "larder jupyter LARDER_JUPYTER_PORT=" in ended.err
        assert not [call for call in ended.stages if {"up", "rm", "stop", "down", "kill"} & {*call["argv"]}]


def test_jupyter_on_its_own_port(door: FrontDoor, taken: int) -> None:
    door.answer("port", "jupyter", out=f"127.0.0.1:{taken}\n")
    ended = door.run("jupyter", "RUNNER=compose", f"LARDER_JUPYTER_PORT={taken}")
    assert ended.code == 0, ended.err
    assert [call for call in ended.stages if "up" in call["argv"]]
    assert ended.out.startswith(f"http://127.0.0.1:{taken}/lab?token=")


def test_a_jupyter_that_does_not_start_takes_itself_away(door: FrontDoor, taken: int) -> None:
    door.answer("up", "-d", code=1, err="dependency failed to start\n")
    ended = door.run("jupyter", "RUNNER=compose")
    assert ended.code == 1
    assert "dependency failed to start" in ended.err
    assert "rm" in ended.stages[-1]["argv"]


def test_the_token_is_for_its_owner(door: FrontDoor) -> None:
    assert door.run("jupyter", "RUNNER=host").code == 0
    token = door.root / ".larder" / "jupyter-token"
    assert token.stat().st_mode & 0o777 == 0o600
    before = token.read_text()
    assert len(before.strip()) == 48
    assert door.run("jupyter", "RUNNER=host").code == 0
    assert token.read_text() == before


# --- questions


@pytest.mark.parametrize("answer", [None, "", "n\n", "no\n", "what?\n"])
def test_nothing_is_removed_without_a_yes(door: FrontDoor, answer: str | None) -> None:
    ended = door.run("clean-local", "RUNNER=compose", stdin=answer)
    assert ended.code == (0 if answer else 1), "an error only if nobody answers"
    assert ended.err.endswith("kept\n" if answer else "kept: nobody answered; YES=1 answers yes\n")
    assert not [call for call in ended.calls if "rm" in call["argv"]]


@pytest.mark.parametrize(("words", "answer"), [((), "y\n"), ((), "YES\n"), (("--yes",), None), (("YES=1",), None)])
def test_a_yes_removes_it(door: FrontDoor, words: tuple[str, ...], answer: str | None) -> None:
    ended = door.run("clean-local", "RUNNER=compose", *words, stdin=answer)
    assert ended.code == 0, ended.err
    assert ended.calls[-1]["argv"][1:] == ["volume", "rm", "food11_local_baseline"]


def test_what_containers_use_is_kept(door: FrontDoor) -> None:
    door.answer("ps", "--all", out="someone (Up 2 hours)\n")
    ended = door.run("clean-wds", "RUNNER=compose", "YES=1")
    assert ended.code == 3
    assert "someone (Up 2 hours)" in ended.err
    assert not [call for call in ended.calls if call["argv"][1:3] == ["volume", "rm"]]


def test_what_the_store_lacks_is_kept(door: FrontDoor) -> None:
    door.answer("--verify-remote", code=3)
    ended = door.run("clean-wds", "RUNNER=compose", "YES=1")
    assert ended.code == 3
    assert "kept food11-webdataset_wds_out" in ended.err
    assert not [call for call in ended.calls if call["argv"][1:3] == ["volume", "rm"]]


def test_verify_makes_no_volumes(door: FrontDoor) -> None:
    door.answer("volume", "ls", out="food11_local_baseline\nfood11-litdata_lit_out\n")
    ended = door.run("verify", "RUNNER=compose")
    assert ended.code == 0, ended.err
    assert ended.stages[-1]["env"].get("VERIFY_WDS") == "baseline"
    assert "VERIFY_LIT" not in ended.stages[-1]["env"]


def test_a_program_that_hangs_is_reported(door: FrontDoor) -> None:
    door.answer("image", seconds=60.0)
    with pytest.raises(ConfigurationError, match="has not answered for 0 s"):
        process.capture(("docker", "image", "ls"), door.environ, 0.3)


def test_stdout_carries_results_only(door: FrontDoor) -> None:
    door.answer("build", out="building\n")
    door.answer("up", "-d", out="starting\n")
    door.answer("run", out="the result\n")
    ended = door.run("bench", "RUNNER=compose")
    assert ended.out == "the result\n"
    assert "building" in ended.err
    assert "runner: compose" in ended.err


def test_no_stage_runs_as_root(door: FrontDoor) -> None:
    environ = {"LARDER_UID": "", "LARDER_GID": ""}
    ended = door.run("bench", "RUNNER=compose", environ=environ)
    assert ended.code == 0, ended.err
    env = ended.stages[-1]["env"]
    assert env["LARDER_UID"] == str(os.getuid() or 1000)
    assert env["LARDER_GID"] == str(os.getgid() or 1000)


def test_records_folder_is_made_whoever_runs_it(door: FrontDoor, tmp_path: Path) -> None:
    results = tmp_path / "-results it's"
    ended = door.run("bench", "RUNNER=host", f"LARDER_RESULTS={results}")
    assert ended.code == 0, ended.err
    assert results.is_dir()
