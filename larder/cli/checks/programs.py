"""Checks of programs and settings: engine, compose, Python, `.env`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from larder.cli import dotenv, environment
from larder.cli.checks.check import FAULT, NOTE, OK, Check, answer
from larder.cli.survey import Survey
from larder.errors import ConfigurationError

_COMPOSE = (2, 24, 4)
"""The first that knows `!override`, which compose/wds.yaml and compose/lit.yaml use."""


def of_engine(survey: Survey) -> Check:
    """Check that containers can be run, where they are wanted."""
    engine, wanted = survey.engine, survey.settings.get("RUNNER")
    if wanted == "host":
        return Check("engine", OK, "not needed: RUNNER=host")
    if engine.state == "ready":
        version = answer(survey, "docker", "version", "--format", "{{.Server.Version}}").strip()
        return Check("engine", OK, f"Docker {version} answers, and you may use it")
    if engine.state == "missing" and wanted != "compose":
        return Check("engine", NOTE, f"{engine.fault}: stages run as processes (RUNNER=host)", engine.remedy)
    return Check("engine", FAULT, engine.fault, engine.remedy)


def of_compose(survey: Survey) -> Check:
    """Check the compose plugin's version."""
    said = answer(survey, "docker", "compose", "version", "--short").strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", said)[:3])
    if numbers and numbers < _COMPOSE:
        least = ".".join(map(str, _COMPOSE))
        return Check("compose", FAULT, f"version {said} is older than {least}", "update docker-compose-plugin")
    return Check("compose", OK, f"version {said}")


def of_python(survey: Survey) -> Iterator[Check]:
    """Check for a Python that can run the host runner, with venv. Containers need none."""
    needed = survey.runner.name == "host"
    yield Check("Python", OK, f"{sys.version.split()[0]} runs larder")
    try:
        found = environment.find_python()
    except ConfigurationError as error:
        yield Check("Python for RUNNER=host", FAULT if needed else NOTE, error.what, error.next_step)
    else:
        yield Check("Python for RUNNER=host", OK, f"{found}, with venv")


def of_env_file(survey: Survey) -> Check:
    """Check the settings. Every other command refuses a `.env` that it can't read or that holds an unknown setting."""
    if fault := survey.settings.fault:
        return Check("settings", FAULT, " ".join(fault.what.split()), fault.next_step)
    path = survey.root / ".env"
    if not path.exists():
        return Check(".env", OK, "there is none: all settings have their defaults")
    names = dotenv.read([path], survey.environ)
    return Check(".env", OK, f"{len(names)} settings, all known")
