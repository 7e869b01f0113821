"""Run jobs in processes of their own, with a time limit.

`template` is the process that is forked for each of them.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import psutil

from larder.bench import peer_environments
from larder.errors import ResourceError

A = TypeVar("A")

START_SECONDS = 300.0
"""Time limit for importing all libraries."""
END_SECONDS = 5.0
"""Time limit for a killed job to disappear."""
WATCH_SECONDS = 0.5
"""How often a running job is looked at."""
_LOG_CHARACTERS = 300


class JobFailure(NamedTuple):
    """Why a job gave no result."""

    kind: Literal["error", "killed", "timeout"]
    message: str
    next_step: str = ""
    """What helps, if it is known."""


class JobRunner:
    """Run jobs one after the other, each in a fork of a process that has imported all libraries.

    Args:
        folder: Folder for results and logs.
        limit_seconds: Time limit of a job.
        modules: Modules that are imported before the first job; one that is missing is skipped.
        python: The Python of a peer's environment; None is this one.
    """

    def __init__(
        self, folder: Path, limit_seconds: float, modules: Sequence[str] = (), python: Path | None = None
    ) -> None:
        self._folder, self._limit, self._modules = folder, limit_seconds, tuple(modules)
        self._python = python
        self._template: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._running: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self) -> None:
        """Start importing, without waiting."""
        if self._template is None or self._template.poll() is not None:
            self._buffer = b""
            own = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._template = subprocess.Popen(
                [self._python or sys.executable, "-m", "larder.bench.comparison.template", *self._modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self._folder / "template.log").open("ab"),
                env=peer_environments.environ() if self._python else own,
                start_new_session=True,  # Ctrl-C is for this process, which ends the other one
            )

    def run(
        self,
        function: Callable[[A], dict[str, Any]],
        argument: A,
        name: str,
        deadline: float = math.inf,
        watch: Callable[[], None] | None = None,
    ) -> dict[str, Any] | JobFailure:
        """Run a job, and return its result or why there is none.

        Args:
            function: Function of a module, which returns its result as JSON types. Its process is forked.
            argument: Its argument, which is pickled.
            name: Name for its files.
            deadline: Time by the monotonic clock at which it is ended, also before the runner's time limit.
            watch: Is called again and again while the job runs.

        Raises:
            ResourceError: If no process can be started.
        """
        from larder.bench.comparison.template import Request

        result, log = self._folder / f"{name}.result", self._folder / f"{name}.log"
        result.unlink(missing_ok=True)
        self._watch = watch
        is_new = self._template is None or self._template.poll() is not None
        began = time.monotonic()
        self.start()
        assert self._template is not None and self._template.stdin is not None
        try:
            if is_new or not self._is_ready:
                self._await("ready", min(began + START_SECONDS, deadline))
                self._is_ready = True
            pickle.dump(Request(function, argument, result, log), self._template.stdin)
            self._template.stdin.flush()
            self._running = int(self._await("pid", min(time.monotonic() + START_SECONDS, deadline)))
            forked = time.monotonic()
            code = self._await("exit", min(forked + self._limit, deadline))
        except TimeoutError:
            has_begun = self._running is not None
            self._end_running()
            if not has_begun:
                message = f"importing the libraries took longer than {_seconds(min(START_SECONDS, deadline - began))}"
                return JobFailure("timeout", message, "end other programs, which keep the machine busy")
            message = f"it took longer than {_seconds(min(self._limit, deadline - forked))}, and was ended"
            is_early = deadline < forked + self._limit
            return JobFailure(
                "timeout", message, "run the whole comparison" if is_early else "set LARDER_ROUND_SECONDS higher"
            )
        except (BrokenPipeError, EOFError):
            self._end()
            raise ResourceError(
                f"the process that starts the rounds has ended: {_last_line(self._folder / 'template.log')}",
                next_step="free memory, or set LARDER_WORKERS lower; then run the same command again, which resumes",
            ) from None
        self._end_group()
        if code < 0:
            name_of_signal = signal.Signals(-code).name
            message = f"its process was ended by {name_of_signal}; the kernel does so if memory runs out"
            return JobFailure("killed", message, "free memory, or set LARDER_WORKERS lower")
        if not result.exists():
            return JobFailure("error", f"its process ended with {code}: {_last_line(log)}", f"see {log}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        result.unlink()
        if "error" in found:
            return JobFailure("error", " ".join(str(found["error"]).split()), found["next_step"] or f"see {log}")
        return found

    _is_ready = False
    _watch: Callable[[], None] | None = None

    def _await(self, key: str, deadline: float) -> Any:
        """Return the next answer's value. Raises TimeoutError, and EOFError if the process has ended."""
        assert self._template is not None and self._template.stdout is not None
        descriptor = self._template.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not select.select([descriptor], [], [], min(left, WATCH_SECONDS))[0]:
                if self._watch is not None:
                    self._watch()
                continue
            data = os.read(descriptor, 65536)
            if not data:
                raise EOFError
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)[key]

    def _end_running(self) -> None:
        """End a job that hangs. The process that forks jobs, with its imported libraries, stays if it notices."""
        was_running = self._running is not None
        self._end_group()
        try:
            if was_running:
                self._await("exit", time.monotonic() + END_SECONDS)
                return
        except (TimeoutError, EOFError):  # such as a process that waits for a dead mount, and can't be killed
            pass
        self._end()

    def _end_group(self) -> None:
        """End a running job with its workers and helpers, or what an ended one has left behind."""
        if self._running is not None:
            daemons = _descendants(self._running)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running, signal.SIGKILL)
            _kill(daemons)  # those that have left the group
            self._running = None

    def _end(self) -> None:
        """End the running job and the process that forks jobs."""
        self._end_group()
        if self._template is not None:
            unknown = _descendants(self._template.pid)  # of a job that was forked, and whose id hasn't arrived
            self._template.kill()
            _kill(unknown)
            self._template.wait()
            for stream in (self._template.stdin, self._template.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
            self._template = None
        self._is_ready = False


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _seconds(number: float) -> str:
    return f"{round(number, 1):g} s"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][-_LOG_CHARACTERS:] if lines else "it wrote nothing"
