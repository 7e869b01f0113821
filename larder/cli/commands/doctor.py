"""Check whether this machine meets larder's requirements."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App, CallFailedError
from larder.cli.checks import all_checks
from larder.cli.checks.result import FAULT
from larder.cli.console import print_result
from larder.cli.inspector import CheckoutInspector
from larder.errors import ResourceError


def doctor(app: App, _: Sequence[str]) -> None:
    """Print a line per check. Raise CallFailedError if the chosen runner can't work."""
    inspector = CheckoutInspector(app.settings, app.environ)
    print_result(f"{'runner':<24} {inspector.runner.name}")
    failed = False
    for check in all_checks(inspector):
        failed |= check.state == FAULT
        next_step = f" → {check.next_step}" if check.next_step else ""
        print_result(f"{check.subject:<24} {check.state:<5}  {check.text}{next_step}")
    if failed:
        raise CallFailedError(ResourceError.exit_code)
