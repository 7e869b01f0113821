"""Containers with services, one of each for all processes of a test run."""

from __future__ import annotations

import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.shared import Started, shared

BOOT_SECONDS = 600


def docker(*words: str, seconds: float = 300) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        pytest.fail(f"docker {' '.join(words)}: {done.stderr[-3000:]}")
    return done.stdout.strip()


def container_at(address: str) -> str:
    """Return the name of the container with this address."""
    form = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    running = docker("inspect", "--format", form, *docker("ps", "--quiet").split())
    return next(line.split()[0] for line in running.splitlines() if address in line.split()).lstrip("/")


def shared_service(
    factory: pytest.TempPathFactory, image: str, recipe: Path, *options: str
) -> AbstractContextManager[dict[str, Any]]:
    """Return a context with `name` and `address` of a running container, built from `recipe` as `image`.

    The first process that needs it starts it, and it ends with the last one. `options` are those of `docker run`.
    """
    return shared(factory, image, lambda _: _start(image, recipe, options))


def _start(image: str, recipe: Path, options: tuple[str, ...]) -> Started:
    docker("build", "--quiet", "--tag", image, str(recipe), seconds=3600)
    name = docker("run", "--detach", "--rm", *options, image)
    stop = ("docker", "rm", "--force", "--volumes", name)
    try:
        _wait_for_boot(image, name)
        address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
    except BaseException:
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL)
        raise
    return Started({"name": name, "address": address}, stop)


def _wait_for_boot(image: str, name: str) -> None:
    end = time.monotonic() + BOOT_SECONDS
    while "] ready" not in (log := docker("logs", name)):
        if time.monotonic() > end or docker("inspect", "--format", "{{.State.Running}}", name) != "true":
            pytest.fail(f"{image} didn't boot:\n{log[-3000:]}")
        time.sleep(0.5)
