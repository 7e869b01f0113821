"""Report progress to stderr: as a bar on a terminal, else as a line per interval, or as JSON lines on request.

stdout is left for results.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from larder.terminal import Lines, as_json, escape, print_escaped

if TYPE_CHECKING:
    from tqdm import tqdm

LogStyle = Literal["auto", "line", "json"]
LINE_INTERVAL_SECONDS = 5.0


class Task(Protocol):
    """A running piece of work."""

    def advance(self, amount: int = 1) -> None:
        """Report that `amount` more units are done."""


class Reporter:
    """Report what a stage does, as text for people or as JSON for machines.

    Args:
        stage: Name of the stage.
        style: The output style.
        rewrite: Changes each text before it is shown, such as paths that the user knows by others.
    """

    def __init__(self, stage: str, style: LogStyle = "auto", rewrite: Callable[[str], str] = str) -> None:
        self.stage, self.rewrite = stage, rewrite
        self._say: Callable[[str], None] = _write
        self.set_style(style)

    def set_style(self, style: LogStyle) -> None:
        """Change the output style from now on."""
        self.json = style == "json"
        self._bar = style == "auto" and sys.stderr.isatty()

    def event(self, name: str, message: str, **fields: Any) -> None:
        """Report one event.

        Args:
            name: The event's name, in the JSON output only.
            message: Text for people. It is escaped to one line unless it is `Lines`.
            fields: More fields for the JSON output.
        """
        message = self._rewritten(escape(message))
        fields = {key: self.rewrite(value) if isinstance(value, str) else value for key, value in fields.items()}
        if self.json:
            _write(as_json({"stage": self.stage, "event": name, "message": message, **fields}))
        else:
            self._say(Lines(f"{self.stage}: {message}"))

    def _rewritten(self, text: str) -> str:
        return text.map(self.rewrite) if isinstance(text, Lines) else self.rewrite(text)

    def event_soon(self, name: str, message: str) -> None:
        """Report an event from a signal handler. Write to the descriptor, since the interrupted code may hold locks."""
        line = as_json({"stage": self.stage, "event": name, "message": message})
        text = line if self.json else f"{chr(10) if self._bar else ''}{self.stage}: {message}"
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """Show the progress of a piece of work.

        Args:
            name: Name of the work.
            total: Number of units; None if unknown.
            unit: "B" for bytes, which are shown with binary prefixes, or a plural noun.
            done: Number of units that an earlier run has done.
        """
        if self._bar:
            from tqdm import tqdm  # imported here because only a terminal needs it

            self._say = partial(tqdm.write, file=sys.stderr)  # above the bar
            name = escape(name)
            with tqdm(
                total=total,
                initial=done,
                unit="B" if unit == "B" else f" {unit}",
                desc=f"{self.stage}: {name}",
                unit_scale=unit == "B",
                unit_divisor=1024,
                file=sys.stderr,
                leave=False,
                ascii=bool(os.environ.get("NO_COLOR")),
                dynamic_ncols=True,
            ) as bar:
                yield _Bar(bar)
        else:
            task = _Lines(self, name, total, unit, done)
            yield task
            task.close()


class NullReporter(Reporter):
    """A reporter without output."""

    def __init__(self) -> None:
        super().__init__("")

    def event(self, name: str, message: str, **fields: Any) -> None:
        """Discard the event."""

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """Discard the progress."""
        yield _NullTask()


class _NullTask:
    def advance(self, amount: int = 1) -> None:
        pass


class _Bar:
    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def advance(self, amount: int = 1) -> None:
        self._bar.update(amount)


class _Lines:
    def __init__(self, reporter: Reporter, name: str, total: int | None, unit: str, done: int) -> None:
        self._reporter, self._name, self._total, self._unit = reporter, name, total, unit
        self._done = self._done_before = done
        self._start = self._last_line = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if time.monotonic() - self._last_line >= LINE_INTERVAL_SECONDS:
            self._say()

    def close(self) -> None:
        if self._last_line != self._start:  # short work gets no progress line
            self._say()

    def _say(self) -> None:
        self._last_line = time.monotonic()
        rate = (self._done - self._done_before) / max(self._last_line - self._start, 1e-9)
        left = (self._total - self._done) / rate if self._total is not None and rate > 0 else None
        eta = f", {left:.0f} s left" if left else ""
        self._reporter.event(
            "progress",
            f"{self._name}: {_format_part(self._done, self._total, self._unit)}{_format_rate(rate, self._unit)}{eta}",
            task=self._name,
            done=self._done,
            total=self._total,
            unit=self._unit,
            per_second=round(rate, 1),
            seconds_left=None if left is None else round(left, 1),
        )


def format_amount(number: float, unit: str) -> str:
    """Format a number with its unit ("B" or a plural noun), such as "1,234 images", "1 image" or "1.2 GiB"."""
    if unit != "B":
        shown = f"{number:,.0f}"
        return f"{shown} {_singular(unit) if shown == '1' else unit}"
    for prefix in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {prefix}" if prefix == "B" else f"{number:.1f} {prefix}"
        number /= 1024
    return f"{number:.1f} TiB"


def _format_part(done: int, total: int | None, unit: str) -> str:
    """Format how much of how much is done, with the unit once if it isn't part of the number."""
    if total is None:
        return format_amount(done, unit)
    return f"{format_amount(done, unit) if unit == 'B' else f'{done:,}'} of {format_amount(total, unit)}"


def _format_rate(rate: float, unit: str) -> str:
    """Format a rate, with a digit more if it is small; nothing if nothing is done yet."""
    if rate <= 0:
        return ""
    if unit == "B" or rate >= 100:
        return f", {format_amount(rate, unit)}/s"
    digits = 1 if rate >= 1 else 2
    return f", {rate:,.{digits}f} {unit}/s" if rate >= 0.005 else f", less than 0.01 {unit}/s"


def _singular(plural: str) -> str:
    return plural.removesuffix("es") if plural.endswith(("batches", "classes")) else plural.removesuffix("s")


def _write(line: str) -> None:
    print_escaped(line, file=sys.stderr)
