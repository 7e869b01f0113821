"""The result of a check: ok, note or fault.

A note means that something works less well, or that an optional command can't run. A fault means that the chosen runner
can't work.
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli import process
from larder.cli.inspector import CheckoutInspector
from larder.cli.runner import ENGINE_SECONDS

OK, NOTE, FAULT = "ok", "note", "fault"


class DoctorResult(NamedTuple):
    """Result of one check.

    Attributes:
        subject: What was checked.
        state: ok, note or fault.
        text: The finding.
        next_step: The next step; empty if none is needed.
    """

    subject: str
    state: str
    text: str
    next_step: str = ""


def capture_stdout(inspector: CheckoutInspector, *argv: str) -> str:
    """Return the output of a short program; empty if it fails."""
    code, out, _ = process.capture(argv, inspector.environ, ENGINE_SECONDS)
    return out if code == 0 else ""
