"""What a check finds.

ok; a note, where something works less well or a command that not everybody needs can't run; a fault, where the chosen
runner can't work.
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli import process
from larder.cli.runner import ENGINE_SECONDS
from larder.cli.survey import Survey

OK, NOTE, FAULT = "ok", "note", "fault"


class Check(NamedTuple):
    """What one check has found.

    Attributes:
        subject: What was looked at.
        state: ok, note or fault.
        text: What was found.
        remedy: The next step; empty where all is well.
    """

    subject: str
    state: str
    text: str
    remedy: str = ""


def answer(survey: Survey, *argv: str) -> str:
    """Return what a short program prints; empty when it fails."""
    code, out, _ = process.output(argv, survey.environ, ENGINE_SECONDS)
    return out if code == 0 else ""
