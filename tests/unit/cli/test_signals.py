"""Ctrl-C and SIGTERM: running processes get the signal, the command waits for them, and the exit code is 130."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from larder.cli import compose
from tests.conftest import wait_until
from tests.unit.cli.conftest import FrontDoor

STAGE = """#!{python} -ISs
import os, signal, sys, time
here = {folder!r}
def end(number, frame):
    open(here + "/signals", "a").write(signal.Signals(number).name + "\\n")
    time.sleep(0.2)  # it tidies up
    open(here + "/ended", "w").close()
    sys.exit(130)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
open(here + "/started", "w").write(str(os.getpid()))
time.sleep(60)
"""


@pytest.fixture
def slow(door: FrontDoor) -> FrontDoor:
    """A machine whose stages take long, and clean up when they are told to end."""
    python = door.root / ".venv" / "bin" / "python"
    python.write_text(STAGE.format(python=(door.bin / "python3").resolve(), folder=str(door.machine)))
    return door


def started(door: FrontDoor) -> bool:
    file = door.machine / "started"
    return file.exists() and bool(file.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_to_larder_alone_reaches_the_stage(slow: FrontDoor, number: signal.Signals) -> None:
    process = slow.start("etl-load", "RUNNER=host", start_new_session=True)
    wait_until(lambda: started(slow), "the stage runs")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert (slow.machine / "signals").read_text().splitlines() == [number.name]
    assert (slow.machine / "ended").exists(), "it was waited for"


def test_a_second_signal_is_handed_on_too(slow: FrontDoor) -> None:
    process = slow.start("etl-load", "RUNNER=host", start_new_session=True)
    wait_until(lambda: started(slow), "the stage runs")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: (slow.machine / "signals").exists(), "the stage was told")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def interrupted_in_a_terminal(door: FrontDoor, command: Sequence[str]) -> tuple[int, bytes]:
    """Press Ctrl-C in a terminal while a stage runs. Returns the exit code and the output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(door.root)
        os.execve(command[0], [*command, "etl-load", "RUNNER=host"], door.environ)
    wait_until(lambda: started(door), "the stage runs")
    os.write(terminal, b"\x03")
    output = b""
    with suppress(OSError):  # that the terminal is gone
        while part := os.read(terminal, 4096):
            output += part
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), output


def test_ctrl_c_in_a_terminal_reaches_the_stage_once(slow: FrontDoor) -> None:
    code, output = interrupted_in_a_terminal(slow, slow.command)
    assert code == 130
    assert b"Traceback" not in output
    assert (slow.machine / "signals").read_text().splitlines() == ["SIGINT"]
    assert (slow.machine / "ended").exists()


def test_ctrl_c_through_make(slow: FrontDoor) -> None:
    code, output = interrupted_in_a_terminal(slow, (str(slow.bin / "make"),))
    assert code != 0
    wait_until(lambda: (slow.machine / "ended").exists(), "the stage has ended")
    assert b"Traceback" not in output


def test_a_signal_while_the_engine_is_asked(door: FrontDoor) -> None:
    door.answer("version", seconds=60.0)
    process = door.start("etl-load", start_new_session=True)
    wait_until(lambda: bool(door.calls()), "the engine is asked")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in err


def test_a_signal_while_the_user_is_asked(door: FrontDoor) -> None:
    process = door.start("clean-local", "RUNNER=host", stdin=subprocess.PIPE, start_new_session=True)
    assert process.stderr
    while "[y/N]" not in (text := os.read(process.stderr.fileno(), 4096).decode()):
        assert text
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_what_ignores_sigint_goes_on_ignoring_it(slow: FrontDoor) -> None:
    process = slow.start(
        "etl-load",
        "RUNNER=host",
        start_new_session=True,
        through=("sh", "-c", 'trap "" INT; exec "$0" "$@"'),
    )
    wait_until(lambda: started(slow), "the stage runs")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)  # nothing is to happen: no condition to wait for
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert (slow.machine / "signals").read_text().splitlines() == ["SIGTERM"]


def test_a_stage_that_a_signal_kills(slow: FrontDoor) -> None:
    process = slow.start("etl-load", "RUNNER=host", start_new_session=True)
    wait_until(lambda: started(slow), "the stage runs")
    os.kill(int((slow.machine / "started").read_text()), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGKILL


def test_two_commands_at_once(door: FrontDoor, tmp_path: Path) -> None:
    """In an empty checkout, neither command damages what the other creates."""
    started = [door.start(*words, "RUNNER=host") for words in (("jupyter",), ("s3-up",), ("jupyter",), ("s3-up",))]
    for process in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    home = door.root / ".larder"
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["jupyter-token", "s3-host.env"]
    assert len((home / "jupyter-token").read_text()) == 49
    assert len((home / "s3-host.env").read_text().splitlines()) == 4
    assert all((home / name).stat().st_mode & 0o777 == 0o600 for name in ("jupyter-token", "s3-host.env"))


def test_a_container_that_the_engine_still_makes_is_removed(tmp_path: Path) -> None:
    """Its client has ended, and the engine shows it only at the third look."""
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f'[ "$1" = ps ] && [ "$(grep -c ^ps {tmp_path}/calls)" -eq 3 ] && echo c0ffee\nexit 0\n'
    )
    docker.chmod(0o755)
    client = subprocess.Popen(["true"])
    client.wait()
    compose.end_container("larder.run=x", client, {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert "rm --force c0ffee" in (tmp_path / "calls").read_text().splitlines()
