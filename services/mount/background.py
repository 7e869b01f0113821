"""Start this stage in the background, and return when its mount answers."""

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
from larder.stage import StageOutcome
from larder.terminal import join_lines, print_escaped
from services.mount.mount_folder import MountFolder
from services.mount.serve import UNMOUNT
from services.mount.settings import MountSettings

_PAUSE_SECONDS = 0.05
_END_SECONDS = 30.0
_ERRORS_BY_CODE: dict[int, type[LarderError]] = {2: ConfigurationError, 3: StorageError}


def detach(settings: MountSettings, reporter: Reporter) -> StageOutcome:
    """Mount in a background process that outlives this one. Raises that process's error if it fails."""
    mount_folder = MountFolder(settings.mount_dir)
    mount_folder.create()
    with mount_folder.try_lock() as locked:
        if locked:  # no process writes to the log
            mount_folder.log.unlink(missing_ok=True)
    # Read through the open file: another command that starts now may remove the log and create a new one.
    with mount_folder.log.open("ab") as log, open(f"/proc/self/fd/{log.fileno()}", "rb") as lines:
        lines.seek(0, os.SEEK_END)
        process = background.detach([sys.executable, "-m", "services.mount"], log, _environment(settings), stdout=False)
        try:
            last = _wait_until_mounted(process, lines, reporter)
        except BaseException:
            background.stop(process, _END_SECONDS)
            raise
    if process.poll():
        raise _process_error(process.returncode, last, mount_folder)
    print_escaped(str(mount_folder.mount_point(settings.bucket)))
    if process.returncode == 0:
        return StageOutcome(last.get("message", ""), "")
    return StageOutcome(f"in the background: process {process.pid}, log {mount_folder.log}", f"{UNMOUNT} unmounts it")


def _environment(settings: MountSettings) -> dict[str, str]:
    """Return the process's environment, with the settings given as flags: other users can see arguments."""
    given = {}
    for setting in settings_of(MountSettings):
        value = getattr(settings, setting.field)
        given[setting.names[0]] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return os.environ | given | {"LARDER_DETACH": "false", "LARDER_LOG": "json"}


def _wait_until_mounted(process: subprocess.Popen[bytes], lines: IO[bytes], reporter: Reporter) -> dict[str, Any]:
    """Wait until the process has mounted the bucket or has ended, report its events, and return the last one.

    Other processes that start at the same time write to the same log.
    """
    last: dict[str, Any] = {}
    while True:
        ended = process.poll() is not None  # checked before reading, so that the log is complete
        for entry in _read_entries(lines):
            name = entry.get("event", "log")
            if name not in ("error", "done"):  # this process reports these itself
                reporter.event(name, entry.get("message", ""))
            if name in ("error", "done") or (name == "mounted" and entry.get("pid") == process.pid):
                last = entry
        if ended or last.get("event") == "mounted":
            return last
        time.sleep(_PAUSE_SECONDS)


def _read_entries(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield new events in the log."""
    for line in lines:
        try:
            yield dict(json.loads(line))
        except ValueError:  # a traceback
            yield {"event": "log", "message": line.decode(errors="replace").rstrip()}


def _process_error(code: int, entry: dict[str, Any], mount_folder: MountFolder) -> LarderError:
    """Return the process's error, from its log."""
    what, _, next_step = str(entry.get("message", "")).partition("\n  next step: ")
    if entry.get("event") != "error":
        what, next_step = f"the process in the background ended with {code}", ""
    kind = _ERRORS_BY_CODE.get(code, ServiceError)
    return kind(
        join_lines(*what.removeprefix("error: ").split("\n")), next_step=next_step or f"read {mount_folder.log}"
    )
