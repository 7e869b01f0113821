"""Show how far a job is. Its process writes a small file, which the comparison's process reads while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self, TypeVar

from larder.progress import Reporter, Task, format_amount

T = TypeVar("T")

ANNOUNCE_SECONDS = 2.0
"""A job that takes longer is announced."""
WAITING_SECONDS = 10.0
"""How often to tell that a job hasn't read anything yet."""
_WRITE_SECONDS = 0.25


def write_progress(path: Path | None, done: int, total: int) -> None:
    """Write how many images of how many have come; without a path, nothing."""
    if path is not None:
        with suppress(OSError):  # progress isn't worth a failed run: the result, written later, reports a full disk
            path.write_text(f"{done} {total}", encoding="ascii")


def counted(items: Iterable[T], path: Path | None, total: int) -> Iterator[T]:
    """Yield the items, and write how many have come, at most every quarter of a second."""
    written = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - written >= _WRITE_SECONDS:
            write_progress(path, number, total)
            written = time.monotonic()


def read_progress(path: Path) -> tuple[int, int] | None:
    """Return what `write_progress` wrote; None if it wrote nothing yet, or is writing now."""
    try:
        done, total = path.read_text(encoding="ascii").split()
        return int(done), int(total)
    except (FileNotFoundError, ValueError):
        return None


class JobWatch:
    """Announce a job that takes longer than ANNOUNCE_SECONDS, and show its progress. Call it while the job runs.

    Args:
        reporter: Shows it.
        name: The job, in words.
        path: The file that the job's process writes.
        clock: Returns the time in seconds.
    """

    def __init__(self, reporter: Reporter, name: str, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter, self._name, self._path, self._clock = reporter, name, path, clock
        self._task: Task | None = None
        self._shown = 0

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        self._began, self._said = self._clock(), 0.0
        self._stack = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._path.unlink(missing_ok=True)

    def __call__(self) -> None:
        """Show what is new."""
        seconds = self._clock() - self._began
        if seconds < ANNOUNCE_SECONDS:
            return
        if not self._said:
            self._say(seconds, "running")
        found = read_progress(self._path)
        if found is None:
            if seconds - self._said >= WAITING_SECONDS:
                self._say(seconds, f"no image has come yet, after {format_amount(seconds, 'seconds')}")
            return
        done, total = found
        if self._task is None:
            self._task = self._stack.enter_context(self._reporter.task(self._name, total or None, "images"))
        self._task.advance(max(done - self._shown, 0))
        self._shown = max(done, self._shown)

    def _say(self, seconds: float, what: str) -> None:
        self._said = seconds
        self._reporter.event("running", f"{self._name}: {what}")
