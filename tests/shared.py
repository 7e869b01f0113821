"""Servers that all processes of a test run share: the first one that needs a server starts it, the last one ends it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Started(NamedTuple):
    """A started server."""

    facts: dict[str, Any]
    """What its users must know, as JSON."""
    stop: Sequence[str]
    """The command that ends it."""


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder of the whole test run."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextmanager
def shared(factory: pytest.TempPathFactory, name: str, start: Callable[[Path], Started]) -> Iterator[dict[str, Any]]:
    """Yield the facts about the running server. `start` gets a folder for its files.

    Each user holds a shared lock. A process beside the test run waits for it and then stops what was started, even when
    the test run was killed.
    """
    folder = run_folder(factory) / name
    folder.mkdir(exist_ok=True)
    note = folder / "facts.json"
    with (folder / "users").open("a") as users, (folder / "turn").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not note.exists():
            facts, stop = start(folder)
            note.write_text(json.dumps(facts))
            subprocess.Popen(
                ["flock", str(folder / "users"), "sh", "-c", 'rm -- "$0"; exec "$@"', str(note), *stop],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield json.loads(note.read_text())
