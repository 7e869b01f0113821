"""Checks what larder needs of this machine."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App, Failed
from larder.cli.checks import all_checks
from larder.cli.checks.check import FAULT
from larder.cli.console import tell
from larder.cli.survey import Survey
from larder.errors import ResourceError


def doctor(app: App, _: Sequence[str]) -> None:
    """Print a line for each check. Raises Failed where the chosen runner can't work."""
    survey = Survey(app.settings, app.environ)
    tell(f"{'runner':<24} {survey.runner.name}")
    failed = False
    for check in all_checks(survey):
        failed |= check.state == FAULT
        remedy = f" → {check.remedy}" if check.remedy else ""
        tell(f"{check.subject:<24} {check.state:<5}  {check.text}{remedy}")
    if failed:
        raise Failed(ResourceError.exit_code)
