"""Requests that a cloud may still work on after the run that sent them has ended.

A run that is killed right after a request leaves nothing in the cloud that the next run could find, and the cloud
creates the resource a moment later. So a note lies in the state folder from before each such request until its answer.
The next command that changes the stack finds the note, and waits for the resource before it does anything else
(provision.settle).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from larder.errors import LarderError
from provision.cloud_errors import CLOUD_ERRORS, may_still_be_working

FILE = "in-flight.json"
"""One file suffices: a run sends one request at a time, and ends if an answer is lost."""


@dataclass(frozen=True)
class Request:
    """What a request creates."""

    kind: str
    name: str
    """Empty if the kind alone identifies it."""
    sent_at: float
    """By this machine's clock."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True)
class Note:
    """The note on a request that creates something of a kind."""

    folder: Path
    kind: str
    name: str = ""

    def write(self) -> None:
        """Note that the request may be in flight from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self.folder / f"{FILE}.new"
        new.write_text(json.dumps(asdict(Request(self.kind, self.name, time.time()))))
        os.replace(new, self.folder / FILE)

    def remove(self) -> None:
        """Remove the note, since the request has ended."""
        remove(self.folder)

    @contextmanager
    def kept_while_in_flight(self) -> Iterator[None]:
        """Keep the note during a block that sends the request, and after it if the answer got lost."""
        self.write()
        try:
            yield
        except CLOUD_ERRORS as error:
            if may_still_be_working(error):
                self.write()
            else:
                self.remove()
            raise
        except LarderError:  # the cloud has answered, if only with a refusal
            self.remove()
            raise
        self.remove()


def read(folder: Path) -> Request | None:
    """Return the request that an earlier run left in flight, or None."""
    try:
        noted = json.loads((folder / FILE).read_text())
        return Request(str(noted["kind"]), str(noted["name"]), float(noted["sent_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(folder: Path) -> None:
    """Remove the note in a state folder."""
    (folder / FILE).unlink(missing_ok=True)
