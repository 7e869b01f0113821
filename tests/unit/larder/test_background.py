"""Background processes: real Python processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.background import BackgroundProcess, Child, is_running, process_arguments, stop
from larder.errors import ResourceError, ServiceError
from larder.progress import Reporter
from tests.conftest import wait_until

REPORTER = Reporter("test", "line")
ENDLESS = "import sys, time; print('it runs', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ENDLESS}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackgroundProcess]:
    """A server, not yet started; it is killed after the test."""
    server = BackgroundProcess("the server", tmp_path / "home", {f"--home={tmp_path}"})
    yield server
    if (pid := server.pid()) is not None:
        os.kill(pid, signal.SIGKILL)


def start(server: BackgroundProcess, program: str) -> subprocess.Popen[bytes]:
    """Start a Python program as the server, and wait until it prints."""
    process = server.start([sys.executable, "-c", program, *server.arguments])
    wait_until(lambda: "it runs" in server.log.read_text(), "it prints")
    return process


def test_it_is_found_again_and_stopped(server: BackgroundProcess) -> None:
    with server.exclusive():
        assert server.pid() is None
        process = start(server, ENDLESS)
        assert server.pid() == process.pid
        assert os.getsid(process.pid) == process.pid, "a closed terminal doesn't end it"
        server.wait(process, lambda: "", 60, REPORTER)
        assert server.end(60, REPORTER)
        assert process.wait() == -signal.SIGTERM
        assert not server.pid_file.exists()
        assert not server.end(60, REPORTER)
    assert server.home.stat().st_mode & 0o777 == 0o700


def test_a_reused_process_id_is_somebody_else_s(server: BackgroundProcess) -> None:
    with server.exclusive():
        server.write_pid(os.getpid())
        assert server.pid() is None
        assert not server.end(60, REPORTER), "and this process still runs"
        server.pid_file.write_text("no number")
        assert server.pid() is None


def test_one_that_was_killed_has_ended(server: BackgroundProcess) -> None:
    with server.exclusive():
        process = start(server, ENDLESS)
        process.kill()
        wait_until(lambda: server.pid() is None, "a process that nobody has waited for has ended, too")
        process.wait()


def test_a_second_command_waits_for_the_first(server: BackgroundProcess) -> None:
    order = []

    def second() -> None:
        with server.exclusive():
            order.append("second")

    thread = threading.Thread(target=second)
    with server.exclusive():
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_one_that_ends_at_once_shows_its_log(server: BackgroundProcess) -> None:
    with server.exclusive():
        process = server.start([sys.executable, "-c", "import sys; sys.exit('no licence')"])
        with pytest.raises(ServiceError, match=r"(?s)the server ended with 1:\n.*no licence") as caught:
            server.wait(process, lambda: "it is silent", 60, REPORTER)
        assert str(server.log) in caught.value.next_step
        assert not server.pid_file.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, None], ids=["interrupt", "fault", "too late"])
def test_half_a_start_is_taken_back(server: BackgroundProcess, error: type[BaseException] | None) -> None:
    def unready() -> str:
        if error is not None:
            raise error
        return "it is silent"

    with server.exclusive():
        process = start(server, ENDLESS)
        with pytest.raises(error or ServiceError, match=None if error else "is not ready after 0 s: it is silent"):
            server.wait(process, unready, 0.2, REPORTER)
        assert process.poll() == -signal.SIGKILL
        assert not server.pid_file.exists()


def test_one_that_ran_before_is_not_killed_by_waiting(server: BackgroundProcess) -> None:
    with server.exclusive():
        process = start(server, ENDLESS)
        with pytest.raises(ServiceError, match="it is silent"):
            server.wait(None, lambda: "it is silent", 0.2, REPORTER)
        assert server.pid() == process.pid


def test_one_that_does_not_stop_is_named(server: BackgroundProcess) -> None:
    with server.exclusive():
        process = start(server, DEAF)
        with pytest.raises(ResourceError, match=rf"\(process {process.pid}\) did not stop in 0 s") as caught:
            server.end(0.2, REPORTER)
        assert f"kill -9 {process.pid}" in caught.value.next_step
        assert server.pid() == process.pid


@pytest.mark.parametrize(
    ("program", "at_once", "code"),
    [
        (ENDLESS, True, -signal.SIGTERM),
        (DEAF, True, -signal.SIGKILL),
        (ENDLESS, False, -signal.SIGTERM),
        ("", False, 0),
    ],
    ids=["SIGTERM", "SIGKILL", "after its time", "by itself"],
)
def test_stop(program: str, at_once: bool, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    assert stop(process, 60 if program == "" else 0.5, at_once=at_once) == code
    process.stdout.close()


def test_a_child_s_lines_and_end_are_reported(tmp_path: Path) -> None:
    lines: list[str] = []
    ended = threading.Event()
    program = "import os, sys; print(os.getcwd(), os.environ['WORD'], file=sys.stderr); sys.exit(7)"
    child = Child([sys.executable, "-c", program], {"WORD": "a"}, tmp_path, lines.append, ended.set)
    assert ended.wait(60)
    assert lines == [f"{tmp_path} a\n"]
    assert child.code() == 7


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    parent = f"""
import os, sys
from pathlib import Path
from larder.background import Child
child = Child([sys.executable, "-c", {ENDLESS!r}], dict(os.environ), Path("."), print, lambda: None)
print(child._process.pid, flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    pid = int(process.stdout.readline())
    assert is_running(pid, {sys.executable})
    process.kill()
    process.communicate()
    wait_until(lambda: process_arguments(pid) == [], "it has ended, too")


def test_nobody_has_this_process_id() -> None:
    assert process_arguments(2**22 + 1) == []
    assert not is_running(2**22 + 1, {"python"})
