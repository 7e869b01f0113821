"""One progress interface: a bar on a terminal, a line per interval without one, JSON lines on request.

Everything goes to stderr; stdout is for results.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from larder.terminal import Lines, as_json, escaped, say

if TYPE_CHECKING:
    from tqdm import tqdm

LogStyle = Literal["auto", "line", "json"]
LINE_INTERVAL_SECONDS = 5.0


class Task(Protocol):
    """A piece of work under way."""

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more units are done."""


class Reporter:
    """Says to people and machines what a stage is doing."""

    def __init__(self, stage: str, style: LogStyle = "auto") -> None:
        self.stage = stage
        self._say: Callable[[str], None] = _write
        self.speak(style)

    def speak(self, style: LogStyle) -> None:
        """Change how it speaks, from here on."""
        self.json = style == "json"
        self._bar = style == "auto" and sys.stderr.isatty()

    def event(self, name: str, message: str, **fields: Any) -> None:
        """Report one event: `message` for people, escaped to one line unless it is `Lines`; the rest for machines."""
        message = escaped(message)
        if self.json:
            _write(as_json({"stage": self.stage, "event": name, "message": message, **fields}))
        else:
            self._say(Lines(f"{self.stage}: {message}"))

    def event_at_once(self, name: str, message: str) -> None:
        """The same from a signal handler: past buffers and locks that what it interrupted may hold."""
        line = as_json({"stage": self.stage, "event": name, "message": message})
        text = line if self.json else f"{chr(10) if self._bar else ''}{self.stage}: {message}"
        with suppress(OSError):
            os.write(2, f"{text}\n".encode())

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """Follow work of `total` units (None when unknown), `done` of them from an earlier run.

        `unit` is "B" for bytes, which are shown with binary prefixes, or a plural noun.
        """
        if self._bar:
            from tqdm import tqdm  # here, since without a terminal nobody needs it

            self._say = partial(tqdm.write, file=sys.stderr)  # above the bar
            name = escaped(name)
            with tqdm(
                total=total, initial=done, unit="B" if unit == "B" else f" {unit}", desc=f"{self.stage}: {name}",
                unit_scale=unit == "B", unit_divisor=1024, file=sys.stderr, leave=False,
                ascii=bool(os.environ.get("NO_COLOR")), dynamic_ncols=True,
            ) as bar:  # fmt: skip
                yield _Bar(bar)
        else:
            task = _Lines(self, name, total, unit, done)
            yield task
            task.close()


class Silent(Reporter):
    """Says nothing: for work that nobody follows."""

    def __init__(self) -> None:
        super().__init__("")

    def event(self, name: str, message: str, **fields: Any) -> None:
        """See Reporter."""

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Reporter."""
        yield _Unseen()


class _Unseen:
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
        self._start = self._said = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if time.monotonic() - self._said >= LINE_INTERVAL_SECONDS:
            self._say()

    def close(self) -> None:
        if self._said != self._start:  # short work needs no line of its own
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = (self._done - self._done_before) / max(self._said - self._start, 1e-9)
        left = (self._total - self._done) / rate if self._total is not None and rate > 0 else None
        of = f" of {amount(self._total, self._unit)}" if self._total is not None else ""
        eta = f", {left:.0f} s left" if left is not None else ""
        self._reporter.event(
            "progress", f"{self._name}: {amount(self._done, self._unit)}{of}, {amount(rate, self._unit)}/s{eta}",
            task=self._name, done=self._done, total=self._total, unit=self._unit,
            per_second=round(rate, 1), seconds_left=None if left is None else round(left, 1),
        )  # fmt: skip


def amount(number: float, unit: str) -> str:
    """A number with its unit, "B" or a plural, as people read it: 1,234 images, 1 image, 1.2 GiB."""
    if unit != "B":
        shown = f"{number:,.0f}"
        return f"{shown} {_singular(unit) if shown == '1' else unit}"
    for prefix in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {prefix}" if prefix == "B" else f"{number:.1f} {prefix}"
        number /= 1024
    return f"{number:.1f} TiB"


def _singular(plural: str) -> str:
    return plural.removesuffix("es") if plural.endswith(("batches", "classes")) else plural.removesuffix("s")


def _write(line: str) -> None:
    say(line, file=sys.stderr)
