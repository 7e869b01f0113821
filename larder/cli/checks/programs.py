"""Checks of programs and settings: engine, compose, Python, `.env`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from larder.cli import dotenv, virtualenv
from larder.cli.checks.result import FAULT, NOTE, OK, DoctorResult, capture_stdout
from larder.cli.inspector import CheckoutInspector
from larder.errors import ConfigurationError

_COMPOSE = (2, 24, 4)
"""First version with `!override`, which compose/wds.yaml and compose/lit.yaml use."""


def check_engine(inspector: CheckoutInspector) -> DoctorResult:
    """Check whether containers can run, unless RUNNER=host."""
    engine, runner = inspector.engine, inspector.settings.get("RUNNER")
    if runner == "host":
        return DoctorResult("engine", OK, "not needed: RUNNER=host")
    if engine.state == "ready":
        version = capture_stdout(inspector, "docker", "version", "--format", "{{.Server.Version}}").strip()
        return DoctorResult("engine", OK, f"Docker {version} answers, and you may use it")
    if engine.state == "missing" and runner != "compose":
        return DoctorResult("engine", NOTE, f"{engine.fault}: stages run as processes (RUNNER=host)", engine.next_step)
    return DoctorResult("engine", FAULT, engine.fault, engine.next_step)


def check_compose(inspector: CheckoutInspector) -> DoctorResult:
    """Check the version of the compose plugin."""
    output = capture_stdout(inspector, "docker", "compose", "version", "--short").strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", output)[:3])
    if numbers and numbers < _COMPOSE:
        least = ".".join(map(str, _COMPOSE))
        return DoctorResult("compose", FAULT, f"version {output} is older than {least}", "update docker-compose-plugin")
    return DoctorResult("compose", OK, f"version {output}")


def check_python(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Check for a Python with venv for the host runner; containers don't need one."""
    needed = inspector.runner.name == "host"
    yield DoctorResult("Python", OK, f"{sys.version.split()[0]} runs larder")
    try:
        python = virtualenv.find_python()
    except ConfigurationError as error:
        yield DoctorResult("Python for RUNNER=host", FAULT if needed else NOTE, error.what, error.next_step)
    else:
        yield DoctorResult("Python for RUNNER=host", OK, f"{python}, with venv")


def check_env_file(inspector: CheckoutInspector) -> DoctorResult:
    """Check the settings. All other commands refuse a `.env` that is invalid or contains unknown settings."""
    if fault := inspector.settings.fault:
        return DoctorResult("settings", FAULT, " ".join(fault.what.split()), fault.next_step)
    path = inspector.root / ".env"
    if not path.exists():
        return DoctorResult(".env", OK, "does not exist: all settings have their defaults")
    names = dotenv.read([path], inspector.environ)
    return DoctorResult(".env", OK, f"{len(names)} settings, all known")
