"""What `larder doctor` checks, one function each. They look, and change nothing.

check      what a check finds
machine    disk, cores, memory, ports, FUSE, GPU
programs   engine, compose, Python, `.env`
"""

from __future__ import annotations

from collections.abc import Iterator

from larder.cli.checks import machine, programs
from larder.cli.checks.check import Check
from larder.cli.survey import Survey


def all_checks(survey: Survey) -> Iterator[Check]:
    """Yield every check."""
    yield programs.of_engine(survey)
    if survey.engine.state == "ready":
        yield programs.of_compose(survey)
    yield from machine.of_disks(survey)
    yield machine.of_cores()
    yield machine.of_memory()
    yield machine.of_shared_memory(survey)
    yield from machine.of_ports(survey)
    yield from machine.of_fuse(survey)
    yield from machine.of_gpu(survey)
    yield from programs.of_python(survey)
    yield programs.of_env_file(survey)
