"""Start, find, watch and stop background processes.

`BackgroundProcess` is a process that outlives the command that starts it, such as a server. Later commands find it
by files:

    <home>/pid    its process id
    <home>/log    its output
    <home>/lock   held by the command that starts or stops it

`start_child` and `Child` start a process that ends with the command.
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
from larder.machine import set_parent_death_signal
from larder.progress import Reporter
from larder.terminal import join_lines

_PAUSE_SECONDS = 0.1
_LOG_LINES = 15


def process_arguments(pid: int) -> list[str]:
    """Return the command line of a process, or an empty list if it has ended or can't be read."""
    import psutil  # imported here because few commands need it

    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.Error:
        return []


def is_running(pid: int, words: Collection[str]) -> bool:
    """Return whether the process `pid` runs and has one of `words` in its command line.

    The kernel reuses process ids, so the id alone doesn't identify a process.
    """
    return not set(words).isdisjoint(process_arguments(pid))


def stop(process: subprocess.Popen[Any], grace_seconds: float, *, at_once: bool = True) -> int:
    """Stop a child process with SIGTERM, then with SIGKILL if it doesn't end in time.

    Args:
        process: The child process.
        grace_seconds: How long to wait after SIGTERM before sending SIGKILL.
        at_once: Send SIGTERM immediately. If False, first wait `grace_seconds` for the process to end by itself.

    Returns:
        The exit code; negative for a signal.
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
    command: Sequence[str | Path],
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    stdout: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, in a session of its own, so that Ctrl-C doesn't reach it.

    Args:
        command: Program and arguments.
        log: File that receives stderr, and stdout unless `stdout` is False.
        environment: Environment of the process; None inherits ours.
        folder: Working directory; None inherits ours.
        stdout: Whether to log stdout. If False, stdout is discarded.
    """
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log if stdout else subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )


def ticks(seconds: float, advance: Callable[[], None]) -> Iterator[float]:
    """Yield the remaining seconds about ten times a second, and finally 0. Call `advance` once a second."""
    start = last_tick = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        yield left
        time.sleep(_PAUSE_SECONDS)
        if time.monotonic() - last_tick >= 1:
            last_tick += 1
            advance()
    yield 0


def start_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    *,
    piped_stdin: bool = False,
    handles: Collection[int] = (),
    new_session: bool = False,
) -> subprocess.Popen[str]:
    """Start a process that ends when this one ends, even by SIGKILL. Its stderr is a pipe, its stdout is discarded.

    Args:
        command: Program and arguments.
        environment: Environment of the process.
        folder: Working directory; None inherits ours.
        piped_stdin: Whether stdin is a pipe. If False, it is empty.
        handles: File descriptors that the process inherits.
        new_session: Whether the process gets a session of its own, so that Ctrl-C doesn't reach it.
    """
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE if piped_stdin else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        preexec_fn=set_parent_death_signal,
        pass_fds=tuple(handles),
        start_new_session=new_session,
    )


class Child:
    """A process that ends when this one ends, even by SIGKILL. Its stderr is read line by line."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        on_line: Callable[[str], None],
        on_end: Callable[[], None],
        handles: Collection[int] = (),
    ) -> None:
        """Start the process.

        Args:
            command: Program and arguments.
            environment: Environment of the process.
            folder: Working directory.
            on_line: Called in a thread with each line of stderr.
            on_end: Called in the same thread after the process has ended.
            handles: File descriptors that the process inherits.
        """
        self._on_line, self._on_end = on_line, on_end
        self._process = start_child(  # Ctrl-C reaches only this process, which ends the child
            command, environment, folder, handles=handles, new_session=True
        )
        self._reader = Thread(target=self._follow, daemon=True)
        self._reader.start()

    def code(self) -> int | None:
        """Return the exit code (negative for a signal), or None while the process runs."""
        return self._process.poll()

    def end(self, grace_seconds: float, *, at_once: bool) -> None:
        """Stop the process; see `stop`."""
        stop(self._process, grace_seconds, at_once=at_once)
        self._reader.join(grace_seconds)

    def _follow(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._on_line(line)
        self._process.wait()
        self._on_end()


class BackgroundProcess(NamedTuple):
    """A process that outlives the command that starts it.

    Example:
        server = BackgroundProcess("the store", Path("home"), arguments={"-dir=/data"})
        with server.exclusive():
            if server.pid() is None:
                process = server.start(["weed", "mini", "-dir=/data"])
                server.wait(process, unready, 60, reporter)
    """

    name: str
    """Name of the process in messages, such as "the store"."""
    home: Path
    """Folder for the pid, log and lock files."""
    arguments: Collection[str]
    """Words of which one must be in the process's command line; see `is_running`."""

    @property
    def log(self) -> Path:
        """The file with the process's output."""
        return self.home / "log"

    @property
    def pid_file(self) -> Path:
        """The file with the process id."""
        return self.home / "pid"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Create `home` and hold its lock, so that only one command at a time starts or stops the process."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def pid(self) -> int | None:
        """Return the process id, or None if the process doesn't run."""
        try:
            pid = int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_running(pid, self.arguments) else None

    def write_pid(self, pid: int) -> None:
        """Write the process id to its file."""
        self.pid_file.write_text(f"{pid}\n")

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the process with a new log and write its id to the pid file; see `detach`."""
        with self.log.open("wb") as log:
            process = detach(command, log, environment, folder)
        self.write_pid(process.pid)
        return process

    def wait(
        self, process: subprocess.Popen[bytes] | None, unready: Callable[[], str], seconds: float, reporter: Reporter
    ) -> None:
        """Wait until the process is ready.

        Args:
            process: The process if it was just started, which is killed if it doesn't become ready; None if it was
                already running.
            unready: Returns the reason why the process isn't ready, or "" once it is.
            seconds: Time limit.
            reporter: Shows the elapsed time.

        Raises:
            ServiceError: If the process ends (the message has the last lines of its log) or isn't ready in time.
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
            if process is not None:  # a half-started process would block the next start
                process.kill()
                process.wait()
                self.pid_file.unlink(missing_ok=True)
            raise

    def _failed(self, how: str, *log: str) -> ServiceError:
        return ServiceError(
            join_lines(f"{self.name} {how}", *(f"  | {line}" for line in log)), next_step=f"see {self.log}"
        )

    def end(self, seconds: float, reporter: Reporter) -> bool:
        """Stop the process with SIGTERM and wait for its end.

        Args:
            seconds: Time limit.
            reporter: Shows the elapsed time.

        Returns:
            Whether the process was running.

        Raises:
            ResourceError: If the process doesn't end in time.
        """
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
        self.pid_file.unlink(missing_ok=True)  # also after a crash
        return pid is not None

    def last_lines(self) -> list[str]:
        """Return the last lines of the log."""
        return self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
