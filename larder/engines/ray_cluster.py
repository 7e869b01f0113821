"""Join an existing Ray cluster, or start one on this machine for the duration of the work.

A driver needs a node of the cluster on its machine. This process starts one, so that it doesn't depend on another
user's node. The new node has no CPUs, so that no task runs on it. It has a process group and a folder of its own.
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
from larder.machine import set_parent_death_signal
from larder.next_step import StageRun

INSTALL = "pip install 'ray~=2.55.1'"
START = StageRun("ray", "up")
ReportEvent = Callable[[str, str], None]
"""Called with an event's name and message, like `larder.progress.Reporter.event`."""
_JOIN_SECONDS = 60.0
"""Time limit for our node to start; it takes 3 s on an idle machine."""
_ATTEMPTS = 3
_TOO_SLOW = "timed out during startup"
"""Part of Ray's message if its processes take longer than its limit of 30 s, as on a busy machine."""
_REPORT_INTERVAL_SECONDS = 5.0
"""Interval between messages while the node starts."""
_GRACE_SECONDS = 10.0
"""Time for our node to leave the cluster. If killed earlier, the cluster notices only by missed heartbeats."""
_OBJECT_STORE_BYTES = 256 << 20
"""Shared memory for waiting tasks; Ray spills the rest to the temporary folder."""


def import_ray() -> Any:
    """Return the module `ray`. Raises ConfigurationError if it isn't installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray sends usage statistics to its makers
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigurationError(f"LARDER_ENGINE=ray needs Ray ({error})", next_step=f"run `{INSTALL}`") from error


@contextmanager
def driver(address: str, cpus: int, report: ReportEvent) -> Iterator[str]:
    """Make this process a driver of a Ray cluster within the context.

    Args:
        address: The cluster's head, as `host:port` or `auto`. If empty, start a cluster that ends with the context.
        cpus: Number of CPUs of a cluster that is started here.
        report: Called with an event's name and message if joining takes long.

    Yields:
        The address of the cluster's head.

    Raises:
        ConfigurationError: If Ray isn't installed, or its version or Python's differs from the cluster's.
        ServiceError: If the cluster can't be joined.
    """
    import_ray()
    # The prefix is short because socket paths below the folder are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        if address:
            with (
                _run_node(address, Path(folder), report) as (head, node_folder),
                _connection(address=head, _temp_dir=str(node_folder)),
            ):
                yield head
        else:
            options = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            with _connection(address="local", _temp_dir=folder, **options) as head:
                yield head


@contextmanager
def _connection(**options: Any) -> Iterator[str]:
    """Connect this process to a cluster, and keep Ray from printing. Yield the address of the head."""
    ray = import_ray()
    worker: Any = importlib.import_module("ray._private.worker")
    worker._worker_logs_enabled = False  # else Ray prints node events to stdout, whatever its options
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _init(ray, options)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray installs a handler that ends the process
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


def _init(ray: Any, options: dict[str, Any]) -> None:
    """Call `ray.init`, and retry if it times out. Raises ServiceError if Ray's processes don't start."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
            return
        except Exception as error:  # Ray also raises plain Exceptions
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if attempt < _ATTEMPTS and _TOO_SLOW in reason:
                ray.shutdown()
                continue
            raise ServiceError(
                f"Ray's processes don't start on this machine: {reason}",
                next_step="free memory and cores, and run again: it resumes; or do without Ray: LARDER_ENGINE=local",
            ) from error


@contextmanager
def _run_node(address: str, folder: Path, report: ReportEvent) -> Iterator[tuple[str, Path]]:
    """Run a node of the cluster without CPUs. Yield the address of the head and the node's folder in `folder`."""
    if address != "auto" and (fault := connection_error(address)) is not None:
        raise ServiceError(
            f"nothing answers at {address}, the address in RAY_ADDRESS: {fault}",
            next_step=f"start the cluster ({START}) or correct RAY_ADDRESS, then run again: it resumes",
        )
    for attempt in range(1, _ATTEMPTS + 1):
        node_folder = folder / str(attempt)
        node_folder.mkdir()
        process = _start_node(address, node_folder)
        try:
            try:
                head = _wait_until_joined(process, address, node_folder, report)
            except ServiceError:
                if attempt < _ATTEMPTS and _TOO_SLOW in _read_log(node_folder):
                    continue
                raise
            yield head, node_folder
            return
        finally:
            stop(process, _GRACE_SECONDS)  # the kernel ends its children, too


def _start_node(address: str, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "start.log").open("wb") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ray.scripts.scripts",
                "start",
                f"--address={address}",
                f"--temp-dir={folder}",
                "--num-cpus=0",
                "--num-gpus=0",
                f"--object-store-memory={_OBJECT_STORE_BYTES}",
                "--log-color=false",
                "--include-log-monitor=false",  # a node without tasks has no logs
                "--block",
            ],
            env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},  # it overrides --address
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches only this process
            # SIGKILL, since Ray may hang on SIGTERM. Its children end with it.
            preexec_fn=partial(set_parent_death_signal, signal.SIGKILL),
        )


def _read_log(folder: Path) -> str:
    return (folder / "start.log").read_text(errors="replace")


def _wait_until_joined(process: subprocess.Popen[bytes], address: str, folder: Path, report: ReportEvent) -> str:
    """Wait until the node has joined, and return the head's address, which Ray then writes to a file."""
    marker = folder / "ray_current_cluster"
    start = last_report = time.monotonic()
    while not (marker.exists() and (head := marker.read_text())):
        if process.poll() is not None:
            raise _join_error(address, _read_log(folder))
        now = time.monotonic()
        if now - start > _JOIN_SECONDS:
            raise _join_error(
                address, f"something answers there, but no Ray head has taken this node within {_JOIN_SECONDS:.0f} s"
            )
        if now - last_report > _REPORT_INTERVAL_SECONDS:
            last_report = now
            report("join", f"joining the Ray cluster at {address}: waiting for its head, {now - start:.0f} s so far")
        time.sleep(0.05)
    return head


def _join_error(address: str, output: str) -> LarderError:
    """Return the error for a cluster that can't be joined, from Ray's output."""
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", output)
    if len(versions) == 2:
        (ray, python), (our_ray, our_python) = versions
        return ConfigurationError(
            f"the Ray cluster at {address} runs Ray {ray} on Python {python}, and this process Ray {our_ray} on Python "
            f"{our_python}: the versions must be the same",
            next_step="run all of the cluster's nodes and this stage from the same image",
        )
    reason = (output.strip().splitlines() or ["no reason given"])[-1]
    return ServiceError(
        f"the Ray cluster at {address} can't be joined: {reason}",
        next_step=f"start it ({START}) or correct RAY_ADDRESS, then run again: it resumes",
    )


def connection_error(address: str, seconds: float = 2.0) -> OSError | None:
    """Try to connect to `host:port`. Return the error, or None if the connection succeeds in time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError as error:
        return error
    return None
