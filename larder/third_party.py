"""Report warnings of other libraries as events of the stage, so that they don't break the JSON output."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from larder.progress import LogStyle, Reporter

_NOISY_MODULES = r"PIL\."
"""Modules that warn of odd metadata and large images, once per image. Readers refuse images that are too large."""

_RESOURCE_TRACKER_FILTER = "ignore:resource_tracker:UserWarning"
"""Warning filter that silences Python's resource tracker: it would warn of semaphores that killed workers leave."""


class WarningReporter(NamedTuple):
    """The stage that reports warnings, and its output style. It is passed on to worker processes."""

    stage: str
    style: LogStyle

    def install(self) -> None:
        """Report Python's warnings, and log records of level WARNING if no logging is configured."""
        reporter = Reporter(self.stage, self.style)

        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            _report(reporter, str(message), category.__name__)

        warnings.filterwarnings("ignore", module=_NOISY_MODULES)
        warnings.showwarning = show
        logging.lastResort = _Handler(reporter)


_current: WarningReporter | None = None


def current_warning_reporter() -> WarningReporter | None:
    """Return the stage that reports this process's warnings, or None if the program isn't a stage."""
    return _current


@contextmanager
def report_warnings(reporter: Reporter) -> Iterator[None]:
    """Report warnings within the block as events of `reporter`'s stage, in the style `reporter` has at its start."""
    global _current
    previous, last_resort = _current, logging.lastResort
    _current = WarningReporter(reporter.stage, "json" if reporter.json else "line")
    sys.warnoptions.append(_RESOURCE_TRACKER_FILTER)  # inherited by interpreters that this one starts
    try:
        with warnings.catch_warnings():
            _current.install()
            yield
    finally:
        sys.warnoptions.remove(_RESOURCE_TRACKER_FILTER)
        _current, logging.lastResort = previous, last_resort


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        _report(self._reporter, record.getMessage(), record.name)


def _report(reporter: Reporter, message: str, source: str) -> None:
    text = " ".join(message.split())
    reporter.event("warning", f"warning: {text} ({source})", source=source)
