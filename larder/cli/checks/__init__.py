"""The checks of `larder doctor`, one function each. They change nothing.

check      the result of a check
machine    disk, cores, memory, ports, FUSE, GPU
programs   engine, compose, Python, `.env`
"""

from __future__ import annotations

from collections.abc import Iterator

from larder.cli.checks import machine, programs
from larder.cli.checks.result import DoctorResult
from larder.cli.inspector import CheckoutInspector


def all_checks(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Yield every check."""
    yield programs.check_engine(inspector)
    if inspector.engine.state == "ready":
        yield programs.check_compose(inspector)
    yield from machine.check_disks(inspector)
    yield machine.check_cores()
    yield machine.check_memory()
    yield machine.check_shared_memory(inspector)
    yield from machine.check_ports(inspector)
    yield from machine.check_fuse(inspector)
    yield from machine.check_gpu(inspector)
    yield from programs.check_python(inspector)
    yield programs.check_env_file(inspector)
