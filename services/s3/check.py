"""The task check: every check in its order, a line on stdout for each."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from larder.errors import ConfigurationError, LarderError
from larder.next_step import Run
from larder.progress import Reporter
from larder.stage import Outcome
from larder.terminal import Lines, as_json, escaped, say
from services.commands import in_commands
from services.s3.checks import CHECKS, Blocked, Check, Finding, Probe
from services.s3.settings import S3Settings

_WIDTH = max(len(check.name) for check in CHECKS)
GET_A_STORE = f"run {Run('s3', 'up')} for a store on this machine; for another, fill in a block of .env.example in .env"


class Line(NamedTuple):
    """How one check ended: ok, warning, failed or skipped."""

    name: str
    result: str
    message: str
    next_step: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def check(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Diagnose the store of `settings`. Raises the first failure after all that can be checked was."""
    if not _names_a_store(settings):
        raise ConfigurationError("no store is set: neither S3_ENDPOINT_URL nor keys", next_step=GET_A_STORE)
    ended: dict[str, str] = {}
    failures: dict[str, LarderError] = {}
    causes: dict[str, str] = {}
    with Probe(settings, reporter) as probe:
        for one in CHECKS:
            cause = next((causes[need] for need in one.needs if need in causes), "")
            line = _skipped(one.name, cause) if cause else _run(one, probe, failures)
            ended[one.name] = line.result
            if line.result in ("failed", "skipped"):
                causes[one.name] = cause or one.name
            _say(line, reporter.json)
    for name, error in failures.items():
        what = f"{len(failures)} of {len(CHECKS)} checks failed, first {name}: {error.what}"
        raise type(error)(what, next_step=error.next_step)
    where = f"s3://{settings.bucket} at {settings.s3_endpoint_url or 'AWS'}"
    warnings = list(ended.values()).count("warning")
    well = f"{where} is fine" if not warnings else f"{where} works; warnings above: {warnings}"
    return Outcome(well, str(Run("load")), {"checks": ended})


def _names_a_store(settings: S3Settings) -> bool:
    """Whether there is an endpoint, or keys for AWS: here, in a profile, or of this machine's role."""
    if settings.s3_endpoint_url or settings.aws_access_key_id or os.environ.get("AWS_PROFILE"):
        return True
    import boto3

    return boto3.Session().get_credentials() is not None


def _skipped(name: str, cause: str) -> Line:
    return Line(name, "skipped", f"since {cause} failed")


def _run(one: Check, probe: Probe, failures: dict[str, LarderError]) -> Line:
    try:
        found: Finding = one.run(probe)
    except Blocked as blocked:
        return _skipped(one.name, str(blocked))
    except LarderError as error:
        failures[one.name] = error
        return Line(one.name, "failed", error.what, error.next_step)
    return Line(one.name, "warning" if found.advice else "ok", found.message, found.advice, found.figures)


def _say(line: Line, for_machines: bool) -> None:
    if for_machines:
        fields = {"check": line.name, "result": line.result, "message": escaped(line.message),
                  "next_step": in_commands(line.next_step)}  # fmt: skip
        say(Lines(as_json(fields | line.figures)))
        return
    shown = line.result.upper() if line.result == "failed" else line.result
    todo = f"; {in_commands(line.next_step)}" if line.next_step else ""
    say(f"{shown:<8} {line.name:<{_WIDTH}}  {' '.join((line.message + todo).split())}")
