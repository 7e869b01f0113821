"""What libraries warn of, said in a stage's way: no line of theirs stands between those that machines read."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from larder.progress import LogStyle, Reporter

_METADATA = r"PIL\."
"""The modules that warn of odd metadata and large pictures, image by image; readers refuse what is too large."""

_LEFT_BEHIND = "ignore:resource_tracker:UserWarning"
"""For Python's process that cleans up semaphores, and writes itself: workers that are ended leave some."""


class Told(NamedTuple):
    """Who is told of warnings: a stage, and how it speaks. Processes that it starts are given this."""

    stage: str
    style: LogStyle

    def listen(self) -> None:
        """Report Python's warnings, and what libraries log as such where nobody has set up logging."""
        reporter = Reporter(self.stage, self.style)

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            _report(reporter, str(message), category.__name__)

        warnings.filterwarnings("ignore", module=_METADATA)
        warnings.showwarning = show
        logging.lastResort = _Handler(reporter)


_told: Told | None = None


def told() -> Told | None:
    """Who is told of warnings in this process; None for a program that isn't a stage, whose own they are."""
    return _told


@contextmanager
def warnings_told(reporter: Reporter) -> Iterator[None]:
    """A block in which `reporter`'s stage is told of warnings, as `reporter` speaks when the block begins."""
    global _told
    before, last_resort = _told, logging.lastResort
    _told = Told(reporter.stage, "json" if reporter.json else "line")
    sys.warnoptions.append(_LEFT_BEHIND)  # of interpreters that this one starts
    try:
        with warnings.catch_warnings():
            _told.listen()
            yield
    finally:
        sys.warnoptions.remove(_LEFT_BEHIND)
        _told, logging.lastResort = before, last_resort


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        _report(self._reporter, record.getMessage(), record.name)


def _report(reporter: Reporter, message: str, source: str) -> None:
    text = " ".join(message.split())
    reporter.event("warning", f"warning: {text} ({source})", source=source)
