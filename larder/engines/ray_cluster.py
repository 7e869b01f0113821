"""Joining a Ray cluster and leaving it as it was, or having one on this machine for as long as it is needed.

A driver needs a node of the cluster beside it. So that it never depends on somebody else's, this process starts one of
its own: a node without CPUs, on which no task runs, in a process group and a folder of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from larder.background import stop
from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.machine import end_with_parent
from larder.next_step import Run

INSTALL = "pip install 'ray~=2.55.1'"
START = Run("ray", "up")
Say = Callable[[str, str], None]
"""Told an event's name and message, as `larder.progress.Reporter.event` is."""
_JOIN_SECONDS = 60.0
"""For a node of our own to start; it takes 3 s on an idle machine."""
_ATTEMPTS = 3
_TOO_SLOW = "timed out during startup"
"""What Ray says when its processes took longer than the 30 s that it gives them, as on a machine with much to do."""
_SAY_SECONDS = 5.0
"""Between words while it starts."""
_GRACE_SECONDS = 10.0
"""For that node to say goodbye: else the cluster counts missed heartbeats before it knows."""
_OBJECT_STORE_BYTES = 256 << 20
"""Shared memory for the tasks that wait; what is beyond goes to the temporary folder."""


def import_ray() -> Any:
    """The module `ray`. Raises ConfigurationError when it isn't installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it tells its makers about the machine
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigurationError(f"LARDER_ENGINE=ray needs Ray ({error})", next_step=f"run `{INSTALL}`") from error


@contextmanager
def driver(address: str, cpus: int, say: Say) -> Iterator[str]:
    """Make this process a driver of the cluster at `address`; empty is one with `cpus` CPUs that ends with the context.

    `say` is told when that takes its time. Yields the address of the cluster's head. Raises ConfigurationError when Ray
    isn't installed, or the cluster's is another version; ServiceError when the cluster can't be joined.
    """
    import_ray()
    # A name this short because the path of a socket below it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        if address:
            with _node(address, Path(folder), say) as (head, own), _connection(address=head, _temp_dir=str(own)):
                yield head
        else:
            options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            with _connection(address="local", _temp_dir=folder, **options) as head:
                yield head


@contextmanager
def _connection(**options: Any) -> Iterator[str]:
    """The connection of this process to a cluster, without Ray's words on the terminal."""
    ray = import_ray()
    worker: Any = importlib.import_module("ray._private.worker")
    worker._worker_logs_enabled = False  # else it prints to stdout what happens to nodes, whatever it is told
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _init(ray, options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own there, which ends the process
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _init(ray: Any, options: dict[str, Any]) -> None:
    """Call `ray.init`. Raises ServiceError when Ray's processes don't start."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
            return
        except Exception as error:  # of whatever kind: Ray raises bare Exceptions, too
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if attempt < _ATTEMPTS and _TOO_SLOW in reason:
                ray.shutdown()
                continue
            raise ServiceError(
                f"Ray's processes don't start on this machine: {reason}",
                next_step="free memory and cores, and run again: it resumes; or do without Ray: LARDER_ENGINE=local",
            ) from error


@contextmanager
def _node(address: str, folder: Path, say: Say) -> Iterator[tuple[str, Path]]:
    """A node of the cluster at `address`, without CPUs; yields the head's address and the node's folder in `folder`."""
    if address != "auto" and (fault := listens(address)) is not None:
        raise ServiceError(
            f"nothing answers at {address}, where RAY_ADDRESS says that a Ray cluster is: {fault}",
            next_step=f"start the cluster ({START}) or correct RAY_ADDRESS, then run again: it resumes",
        )
    for attempt in range(1, _ATTEMPTS + 1):
        own = folder / str(attempt)
        own.mkdir()
        process = _start_node(address, own)
        try:
            try:
                head = _joined(process, address, own, say)
            except ServiceError:
                if attempt < _ATTEMPTS and _TOO_SLOW in _log_of(own):
                    continue
                raise
            yield head, own
            return
        finally:
            stop(process, _GRACE_SECONDS)  # the kernel ends its children with it


def _start_node(address: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "start.log").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", f"--temp-dir={folder}",
                "--num-cpus=0", "--num-gpus=0", f"--object-store-memory={_OBJECT_STORE_BYTES}", "--log-color=false",
                "--include-log-monitor=false",  # nothing asks for the logs of a node without tasks
                "--block",
            ],
            env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},  # it overrides --address
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,  # Ctrl-C is for us, not for it
            preexec_fn=partial(end_with_parent, signal.SIGKILL),  # Ray may hang on SIGTERM; its children end with it
        )  # fmt: skip


def _log_of(folder: Path) -> str:
    return (folder / "start.log").read_text(errors="replace")


def _joined(process: subprocess.Popen[bytes], address: str, folder: Path, say: Say) -> str:
    """Wait until the node has joined; returns the head's address, which Ray writes to a file then."""
    sign = folder / "ray_current_cluster"
    begin = said = time.monotonic()
    while not (sign.exists() and (head := sign.read_text())):
        if process.poll() is not None:
            raise _not_joined(address, _log_of(folder))
        now = time.monotonic()
        if now - begin > _JOIN_SECONDS:
            raise _not_joined(
                address, f"something answers there, but no Ray head has taken this node within {_JOIN_SECONDS:.0f} s"
            )
        if now - said > _SAY_SECONDS:
            said = now
            say("join", f"joining the Ray cluster at {address}: waiting for its head, {now - begin:.0f} s so far")
        time.sleep(0.05)
    return head


def _not_joined(address: str, words: str) -> LarderError:
    """The error for a cluster that can't be joined, from what Ray said."""
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", words)
    if len(versions) == 2:
        (ray, python), (our_ray, our_python) = versions
        return ConfigurationError(
            f"the Ray cluster at {address} runs Ray {ray} on Python {python}, and this process Ray {our_ray} on Python "
            f"{our_python}: they must be the same",
            next_step="run all of the cluster's nodes and this stage from the same image",
        )
    reason = (words.strip().splitlines() or ["no reason given"])[-1]
    return ServiceError(
        f"the Ray cluster at {address} can't be joined: {reason}",
        next_step=f"start it ({START}) or correct RAY_ADDRESS, then run again: it resumes",
    )


def listens(address: str, seconds: float = 2.0) -> OSError | None:
    """Why nothing can be heard from a port within so many seconds, or None."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError as error:
        return error
    return None
