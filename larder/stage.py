"""How every stage runs: settings, signals, errors to exit codes, one summary line.

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
from typing import Any, NamedTuple, TypeVar

from larder import __version__
from larder.errors import EXIT_INTERRUPTED, LarderError, explain_os_error
from larder.progress import LogStyle, Reporter
from larder.settings import Settings
from larder.terminal import Lines
from larder.third_party import warnings_told

S = TypeVar("S", bound=Settings)


class Outcome(NamedTuple):
    """How a stage ended well: its summary line, what to run next, and the figures for machines."""

    summary: str
    next_step: str
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def main(
    stage: str, kind: type[S], work: Callable[[S, Reporter], Outcome], about: str, argv: Sequence[str] | None = None, *,
    program: str = "", in_commands: Callable[[str], str] = str,
) -> int:  # fmt: skip
    """Run a stage and return its exit code (see larder.errors).

    `program` is how its help names it. `in_commands` replaces the stages that a message names
    (larder.next_step) by what people type.
    """
    style: LogStyle = "json" if os.environ.get("LARDER_LOG") == "json" else "auto"
    reporter = Reporter(stage, style)
    words = sys.argv[1:] if argv is None else argv
    owner = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() == owner:  # and none of its forks
            reporter.event_at_once(
                "ending", "interrupted: ending within seconds, once what is under way has been called off"
            )
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # as the first process of a container, it has no default action
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started it has it ignored
        signal.signal(signal.SIGINT, interrupt)

    def run() -> int:
        settings = kind.load(stage, words, os.environ, about=about, program=program)
        if "--check" not in words:
            reporter.speak(settings.log)
            with warnings_told(reporter):
                outcome = work(settings, reporter)
            _finish(reporter, outcome, in_commands)
        return 0

    code = ended(reporter, run, "interrupted; nothing is lost, run the same command again", in_commands)
    if code and argv is None and not _has_workers():
        # What Python does, too, but only after waiting for threads, which may wait for a silent store.
        atexit._run_exitfuncs()
        with suppress(OSError):  # a full disk, or nobody reads any more
            sys.stdout.flush()
        os._exit(code)
    return code


def ended(
    reporter: Reporter, work: Callable[[], int], interrupted: str, in_commands: Callable[[str], str] = str
) -> int:
    """Do the work of a program and return its exit code; what ends it is said in words, `interrupted` for Ctrl-C."""
    try:
        return work()
    except LarderError as error:
        return _fail(reporter, error, in_commands)
    except KeyboardInterrupt:
        reporter.event("interrupted", interrupted)
        return EXIT_INTERRUPTED
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            raise
        return _fail(reporter, explained, in_commands)


def _has_workers() -> bool:
    """Whether worker processes run. Where nobody has started any, what starts them isn't even imported."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and bool(multiprocessing.active_children())


def _finish(reporter: Reporter, outcome: Outcome, in_commands: Callable[[str], str]) -> None:
    summary = outcome.summary
    shown = summary.map(in_commands) if isinstance(summary, Lines) else in_commands(summary)
    reporter.event("done", shown, **outcome.figures)
    if outcome.next_step:
        reporter.event("next", f"next: {in_commands(outcome.next_step)}")


def _fail(reporter: Reporter, error: LarderError, in_commands: Callable[[str], str]) -> int:
    reporter.event("error", error.shown(in_commands), exit_code=error.exit_code)
    return error.exit_code


class Clock:
    """Starts with the run and makes its record."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def record(self, **fields: Any) -> dict[str, Any]:
        """The content of run.json: when, how long, where, with what, and the stage's own `fields`."""
        return {
            "started_at": self._started_at,
            "seconds": round(self.seconds, 3),
            "host": platform.node(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "larder": __version__,
            **fields,
        }
