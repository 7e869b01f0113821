"""Starts the same stage in the background, and comes back when its mount answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from pydantic import SecretStr

from larder import background
from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.progress import Reporter
from larder.settings import settings_of
from larder.stage import Outcome
from larder.terminal import lines, say
from services.mount.place import Place
from services.mount.serve import UNMOUNT
from services.mount.settings import MountSettings

_PAUSE_SECONDS = 0.05
_END_SECONDS = 30.0
_BY_CODE: dict[int, type[LarderError]] = {2: ConfigurationError, 3: StorageError}


def detach(settings: MountSettings, reporter: Reporter) -> Outcome:
    """Mount in a process of its own, which outlives this one. Raises what that process fails with."""
    place = Place(settings.mount_dir)
    place.make()
    with place.claim() as mine:
        if mine:  # nobody writes to it
            place.log.unlink(missing_ok=True)
    with place.log.open("ab") as log, place.log.open("rb") as lines:
        lines.seek(0, os.SEEK_END)
        process = background.detach([sys.executable, "-m", "services.mount"], log, _environment(settings), stdout=False)
        try:
            last = _wait(process, lines, reporter)
        except BaseException:
            background.stop(process, _END_SECONDS)
            raise
    if process.poll():
        raise _failure(process.returncode, last, place)
    say(str(place.point(settings.bucket)))
    if process.returncode == 0:
        return Outcome(last.get("message", ""), "")
    return Outcome(f"in the background: process {process.pid}, log {place.log}", f"{UNMOUNT} takes it away")


def _environment(settings: MountSettings) -> dict[str, str]:
    """The environment for the process: settings given as flags are in it, too, since arguments are for all to see."""
    given = {}
    for setting in settings_of(MountSettings):
        value = getattr(settings, setting.field)
        given[setting.names[0]] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return os.environ | given | {"LARDER_DETACH": "false", "LARDER_LOG": "json"}


def _wait(process: subprocess.Popen[bytes], lines: IO[bytes], reporter: Reporter) -> dict[str, Any]:
    """Wait until the process has mounted the bucket or has ended, and say what it says. Returns its last word.

    Others that were started at the same time write to the same log.
    """
    last: dict[str, Any] = {}
    while True:
        ended = process.poll() is not None  # looked at first: then the log is whole
        for entry in _entries(lines):
            name = entry.get("event", "log")
            if name not in ("error", "done"):  # which this process says itself
                reporter.event(name, entry.get("message", ""))
            if name in ("error", "done") or (name == "mounted" and entry.get("pid") == process.pid):
                last = entry
        if ended or last.get("event") == "mounted":
            return last
        time.sleep(_PAUSE_SECONDS)


def _entries(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The events in the log since the last look."""
    for line in lines:
        try:
            yield dict(json.loads(line))
        except ValueError:  # a traceback
            yield {"event": "log", "message": line.decode(errors="replace").rstrip()}


def _failure(code: int, entry: dict[str, Any], place: Place) -> LarderError:
    """The error that the process ended with, as its log says."""
    what, _, next_step = str(entry.get("message", "")).partition("\n  next step: ")
    if entry.get("event") != "error":
        what, next_step = f"the process in the background ended with {code}", ""
    kind = _BY_CODE.get(code, ServiceError)
    return kind(lines(*what.removeprefix("error: ").split("\n")), next_step=next_step or f"read {place.log}")
