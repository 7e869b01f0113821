"""Processes in the background: start, wait until ready, find again, log, stop.

`Background` is a process that outlives the command that starts it, such as a server. Later commands find it by files:

    <home>/pid    its process id
    <home>/log    what it prints
    <home>/lock   held by the command that starts or stops it

`Child` is one that ends with the command. `stop` ends either.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

from larder.errors import ResourceError, ServiceError
from larder.machine import end_with_parent
from larder.progress import Reporter
from larder.terminal import lines

_PAUSE_SECONDS = 0.1
_LOG_LINES = 15


def arguments(pid: int) -> list[str]:
    """Return the command line of a process; empty when it has ended, or belongs to somebody who hides it."""
    import psutil  # here, since most commands look at no process

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def runs(pid: int, words: Collection[str]) -> bool:
    """Return whether the process `pid` runs and has one of `words` in its command line.

    The kernel gives ids again: a process with other words is somebody else's.
    """
    return not set(words).isdisjoint(arguments(pid))


def stop(process: subprocess.Popen[Any], grace_seconds: float, *, at_once: bool = True) -> int:
    """End a child: by SIGTERM, and by SIGKILL if it is still there after `grace_seconds`. Returns its exit code.

    Without `at_once`, it first has `grace_seconds` to end by itself.
    """
    signals = [process.terminate, process.kill]
    if at_once:
        signals.pop(0)()
    for send in signals:
        try:
            return process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            send()
    return process.wait()


def detach(
    command: Sequence[str | Path], log: IO[bytes], environment: Mapping[str, str] | None = None,
    folder: Path | None = None, *, stdout: bool = True,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a process that outlives this one. A terminal's Ctrl-C is not for it.

    What it prints goes to `log`; without `stdout`, only what it prints to stderr.
    """
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log if stdout else subprocess.DEVNULL,
        stderr=log, start_new_session=True,
    )  # fmt: skip


def ticks(seconds: float, advance: Callable[[], None]) -> Iterator[float]:
    """Yield the seconds that are left, some times a second, and at last 0. `advance` is called once a second."""
    begin = said = time.monotonic()
    while (left := begin + seconds - time.monotonic()) > 0:
        yield left
        time.sleep(_PAUSE_SECONDS)
        if time.monotonic() - said >= 1:
            said += 1
            advance()
    yield 0


class Child:
    """A process that ends with this one, however this one ends. Its stderr is read line by line."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, on_line: Callable[[str], None],
        on_end: Callable[[], None], handles: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Start it. A thread calls `on_line` for each line, and `on_end` when it has ended. It inherits `handles`."""
        self._on_line, self._on_end = on_line, on_end
        self._process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", preexec_fn=end_with_parent,
            pass_fds=tuple(handles), start_new_session=True,  # a Ctrl-C is for us, who then end it in order
        )  # fmt: skip
        self._reader = Thread(target=self._follow, daemon=True)
        self._reader.start()

    def code(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def end(self, grace_seconds: float, *, at_once: bool) -> None:
        """End it; see `stop`."""
        stop(self._process, grace_seconds, at_once=at_once)
        self._reader.join(grace_seconds)

    def _follow(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._on_line(line)
        self._process.wait()
        self._on_end()


class Background(NamedTuple):
    """A process that outlives the command that starts it.

    Example:
        server = Background("the store", Path("home"), words={"-dir=/data"})
        with server.alone():
            if server.pid() is None:
                process = server.start(["weed", "mini", "-dir=/data"])
                server.wait(process, unready, 60, reporter)
    """

    name: str
    """What messages call it, such as "the store"."""
    home: Path
    """The folder of its files."""
    words: Collection[str]
    """It is known by one of these in its command line, since the kernel gives process ids again."""

    @property
    def log(self) -> Path:
        """The file that holds what it prints."""
        return self.home / "log"

    @property
    def pid_file(self) -> Path:
        """The file that holds its process id."""
        return self.home / "pid"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make its folder, and wait until no other command starts or stops it; hold those up until the block ends."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def pid(self) -> int | None:
        """Return its process id; None when it doesn't run, whatever its file says."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if runs(pid, self.words) else None

    def note(self, pid: int) -> None:
        """Write down its process id."""
        self.pid_file.write_text(f"{pid}\n")

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start it with a log of its own, away from the terminal, whose Ctrl-C is not for it."""
        with self.log.open("wb") as log:
            process = detach(command, log, environment, folder)
        self.note(process.pid)
        return process

    def wait(
        self, process: subprocess.Popen[bytes] | None, unready: Callable[[], str], seconds: float, reporter: Reporter
    ) -> None:
        """Wait until it is ready: until `unready` returns no reason any more.

        Args:
            process: The process that was started just now; it is killed if it doesn't become ready. None for one that
                runs already.
            unready: Returns why it isn't ready, or "".
            seconds: How long it may take.
            reporter: Is told how long that takes.

        Raises:
            ServiceError: It has ended, with the last lines of its log, or isn't ready in time.
        """
        try:
            with reporter.task(f"waiting for {self.name}", None, "seconds") as task:
                for left in ticks(seconds, task.advance):
                    if process is not None and process.poll() is not None:
                        raise self._failed(f"ended with {process.returncode}:", *self.last_lines())
                    reason = unready()
                    if not reason:
                        return
                    if not left:
                        raise self._failed(f"is not ready after {seconds:.0f} s: {reason}")
        except BaseException:
            if process is not None:  # half a start would only be in the next one's way
                process.kill()
                process.wait()
                self.pid_file.unlink(missing_ok=True)
            raise

    def _failed(self, how: str, *log: str) -> ServiceError:
        return ServiceError(lines(f"{self.name} {how}", *(f"  | {line}" for line in log)), next_step=f"see {self.log}")

    def end(self, seconds: float, reporter: Reporter) -> bool:
        """Stop it, by SIGTERM. Returns False when it didn't run. Raises ResourceError when it doesn't end in time."""
        pid = self.pid()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            with reporter.task(f"stopping {self.name}", None, "seconds") as task:
                for left in ticks(seconds, task.advance):
                    if self.pid() is None:
                        break
                    if not left:
                        raise ResourceError(
                            f"{self.name} (process {pid}) did not stop in {seconds:.0f} s",
                            next_step=f"look at {self.log}; `kill -9 {pid}` ends it at once",
                        )
        self.pid_file.unlink(missing_ok=True)  # also of one that crashed
        return pid is not None

    def last_lines(self) -> list[str]:
        """Return the end of its log."""
        return self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
