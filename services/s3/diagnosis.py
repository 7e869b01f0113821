"""The task "check": run every check in order, and print a line for each on stdout."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from larder.errors import ConfigurationError, LarderError
from larder.next_step import StageRun
from larder.progress import Reporter
from larder.stage import StageOutcome
from larder.terminal import Lines, as_json, escape, print_escaped
from services.commands import replace_stage_names
from services.s3.checks import CHECKS, BlockedError, CheckContext, Finding, StoreCheck
from services.s3.settings import S3Settings

_WIDTH = max(len(check.name) for check in CHECKS)
STORE_HINT = (
    f"run {StageRun('s3', 'up')} for a store on this machine; for another, fill in a block of .env.example in .env"
)


class StoreCheckResult(NamedTuple):
    """The result of a check: ok, warning, failed or skipped."""

    name: str
    result: str
    message: str
    next_step: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def diagnose(settings: S3Settings, reporter: Reporter) -> StageOutcome:
    """Diagnose the store of `settings`. Run all possible checks, then raise the first failure."""
    if not _is_store_configured(settings):
        raise ConfigurationError("no store is set: neither S3_ENDPOINT_URL nor keys", next_step=STORE_HINT)
    results: dict[str, str] = {}
    failures: dict[str, LarderError] = {}
    causes: dict[str, str] = {}
    with CheckContext(settings, reporter) as probe:
        for check in CHECKS:
            cause = next((causes[need] for need in check.requires if need in causes), "")
            line = _skipped(check.name, cause) if cause else _run(check, probe, failures)
            results[check.name] = line.result
            if line.result in ("failed", "skipped"):
                causes[check.name] = cause or check.name
            _print_result(line, reporter.json)
    for name, error in failures.items():
        what = f"{len(failures)} of {len(CHECKS)} checks failed, first {name}: {error.what}"
        raise type(error)(what, next_step=error.next_step)
    where = f"s3://{settings.bucket} at {settings.s3_endpoint_url or 'AWS'}"
    warnings = list(results.values()).count("warning")
    summary = f"{where} is fine" if not warnings else f"{where} works; warnings above: {warnings}"
    return StageOutcome(summary, str(StageRun("load")), {"checks": results})


def _is_store_configured(settings: S3Settings) -> bool:
    """Return whether there is an endpoint, or keys for AWS: in the settings, a profile, or this machine's role."""
    if settings.s3_endpoint_url or settings.aws_access_key_id or os.environ.get("AWS_PROFILE"):
        return True
    import boto3

    return boto3.Session().get_credentials() is not None


def _skipped(name: str, cause: str) -> StoreCheckResult:
    return StoreCheckResult(name, "skipped", f"since {cause} failed")


def _run(check: StoreCheck, probe: CheckContext, failures: dict[str, LarderError]) -> StoreCheckResult:
    try:
        finding: Finding = check.run(probe)
    except BlockedError as blocked:
        return _skipped(check.name, str(blocked))
    except LarderError as error:
        failures[check.name] = error
        return StoreCheckResult(check.name, "failed", error.what, error.next_step)
    return StoreCheckResult(
        check.name, "warning" if finding.advice else "ok", finding.message, finding.advice, finding.figures
    )


def _print_result(line: StoreCheckResult, as_json_line: bool) -> None:
    if as_json_line:
        fields = {
            "check": line.name,
            "result": line.result,
            "message": escape(line.message),
            "next_step": replace_stage_names(line.next_step),
        }
        print_escaped(Lines(as_json(fields | line.figures)))
        return
    shown = line.result.upper() if line.result == "failed" else line.result
    todo = f"; {replace_stage_names(line.next_step)}" if line.next_step else ""
    print_escaped(f"{shown:<8} {line.name:<{_WIDTH}}  {' '.join((line.message + todo).split())}")
