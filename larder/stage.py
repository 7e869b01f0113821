"""Run a stage: load its settings, handle signals, turn errors into exit codes, print a summary.

A stage's `__main__` is one call of `main`.
"""

from __future__ import annotations

import atexit
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict, TypeVar

from larder import __version__
from larder.errors import EXIT_INTERRUPTED, LarderError, explain_os_error
from larder.progress import LogStyle, Reporter
from larder.settings import Settings
from larder.terminal import Lines
from larder.third_party import report_warnings

S = TypeVar("S", bound=Settings)


class StageOutcome(NamedTuple):
    """Result of a stage: its summary line, what to run next, and its figures for the JSON output."""

    summary: str
    next_step: str
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def main(
    stage: str,
    kind: type[S],
    work: Callable[[S, Reporter], StageOutcome],
    about: str,
    argv: Sequence[str] | None = None,
    *,
    program: str = "",
    to_commands: Callable[[str], str] = str,
    rewrite: Callable[[str], str] = str,
) -> int:
    """Run a stage.

    Args:
        stage: Name of the stage.
        kind: Class of its settings.
        work: Function that does the stage's work.
        about: Description of the stage for the help.
        argv: Flags; by default those of this process.
        program: Name of the program for the help.
        to_commands: Replaces the stages named in a message by commands (`larder.next_step`).
        rewrite: Changes each text before it is shown.

    Returns:
        The exit code (`larder.errors`). After an error, a stage that runs as its own process exits instead of
        returning.
    """
    style: LogStyle = "json" if os.environ.get("LARDER_LOG") == "json" else "auto"
    reporter = Reporter(stage, style, rewrite)
    flags = sys.argv[1:] if argv is None else argv
    stage_pid = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() == stage_pid:  # not in a forked worker
            reporter.event_soon("ending", "interrupted: cancelling running work, which takes seconds")
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # the kernel ignores it by default for a container's first process
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, interrupt)

    def run() -> int:
        settings = kind.load(stage, flags, os.environ, about=about, program=program)
        if "--check" not in flags:
            reporter.set_style(settings.log)
            with report_warnings(reporter):
                outcome = work(settings, reporter)
            _finish(reporter, outcome, to_commands)
        return 0

    code = run_until_end(reporter, run, "interrupted: run the same command again to resume", to_commands)
    if code and argv is None and not _has_workers():
        # Exit without waiting for threads, as Python would: they may wait for a store that doesn't answer.
        atexit._run_exitfuncs()
        with suppress(OSError):  # the disk is full, or the pipe is closed
            sys.stdout.flush()
        os._exit(code)
    return code


def run_until_end(
    reporter: Reporter, work: Callable[[], int], interrupted: str, to_commands: Callable[[str], str] = str
) -> int:
    """Run a program and report the error that ends it.

    Args:
        reporter: Reports the error.
        work: Function that runs the program and returns its exit code.
        interrupted: Message after Ctrl-C or SIGTERM.
        to_commands: Replaces the stages named in a message by commands (`larder.next_step`).

    Returns:
        The exit code (`larder.errors`).
    """
    try:
        return work()
    except LarderError as error:
        return _fail(reporter, error, to_commands)
    except KeyboardInterrupt:
        reporter.event("interrupted", interrupted)
        return EXIT_INTERRUPTED
    except OSError as error:
        larder_error = explain_os_error(error)
        if larder_error is None:
            raise
        return _fail(reporter, larder_error, to_commands)


def _has_workers() -> bool:
    """Return whether worker processes run, without importing multiprocessing if nothing else has."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and bool(multiprocessing.active_children())


def _finish(reporter: Reporter, outcome: StageOutcome, to_commands: Callable[[str], str]) -> None:
    summary = outcome.summary
    shown = summary.map(to_commands) if isinstance(summary, Lines) else to_commands(summary)
    reporter.event("done", shown, **outcome.figures)
    if outcome.next_step:
        reporter.event("next", f"next: {to_commands(outcome.next_step)}")


def _fail(reporter: Reporter, error: LarderError, to_commands: Callable[[str], str]) -> int:
    reporter.event("error", error.format(to_commands), exit_code=error.exit_code)
    return error.exit_code


class RunRecord(TypedDict):
    """What run.json contains for every stage. docs/contract.md shows these texts."""

    started_at: str
    """Start of the run, in UTC."""
    seconds: float
    """Duration of the run."""
    host: str
    """Name of the machine or container."""
    platform: str
    """Operating system and its version."""
    python: str
    """Version of Python."""
    larder: str
    """Version of larder."""


class Clock:
    """Measure the time of a run, and make the record of the run."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def record(self, **fields: Any) -> dict[str, Any]:
        """Return the content of run.json: start, duration, host, versions, and the stage's own `fields`."""
        common = RunRecord(
            started_at=self._started_at,
            seconds=round(self.seconds, 3),
            host=platform.node(),
            platform=platform.platform(),
            python=platform.python_version(),
            larder=__version__,
        )
        return {**common, **fields}
