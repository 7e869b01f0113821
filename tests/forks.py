"""Run stages, and `provision`, as forks of a process that has already imported them.

Such a stage is a process like any other: it has its own memory, environment, signals and exit code, and can be killed.
It only skips the start of an interpreter, the imports, and what is the same in each run (botocore's models, the
sample's pictures): they take longer than most tests' work. For each stage one server
is started when it is first needed; it ends with the test run.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self, TextIO

ROOT = Path(__file__).resolve().parents[1]
IMPORTED_LATER = {
    "bench": ("services.bench.bench", "larder.loaders.litdata_images", "torch", "torchvision", "webdataset"),
    "extract": ("larder.sample.picture", "PIL.JpegImagePlugin", "httpx2"),
    "optimize": ("litdata",),
    "index": ("PIL.JpegImagePlugin",),
    "provision": ("keystoneauth1.identity.v3", "openstack.connection"),
    "transform": ("PIL.JpegImagePlugin",),
    "verify": ("larder.sample.picture", "PIL.JpegImagePlugin"),
}
"""What a stage imports when its work needs it."""
IMPORTED_LATER_BY_MANY = (
    "boto3",
    "larder.artifacts",
    "larder.batches",
    "larder.bucket",
    "larder.ledger",
    "larder.shards",
    "larder.sources",
    "larder.volume",
)
_NUMBER = struct.Struct("q")
_STARTING = threading.Lock()


class Fork:
    """A running stage, with the part of `subprocess.Popen`'s interface that tests use."""

    def __init__(self, args: Sequence[str], status: int, stdout: int, stderr: int) -> None:
        self.args = args
        self.stdout: TextIO = open(stdout, encoding="utf-8")  # noqa: SIM115  (closed in __exit__ or with this object)
        self.stderr: TextIO = open(stderr, encoding="utf-8")  # noqa: SIM115
        self._read: dict[TextIO, bytearray] = {self.stdout: bytearray(), self.stderr: bytearray()}
        self._status = open(status, "rb", buffering=0)  # noqa: SIM115
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        data = self._status.read(_NUMBER.size)
        assert data, "the fork server has ended"
        return int(_NUMBER.unpack(data)[0])

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Return the exit code, negative for a signal."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._number()
        return self.returncode

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends, and wait. After a time-out, the next call returns what was read before."""
        end = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as open_ones:
            for stream in self._read:
                if not stream.closed:
                    open_ones.register(stream, selectors.EVENT_READ)
            while open_ones.get_map():
                ready = open_ones.select(_left(end))
                if not ready:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    self._read[key.fileobj] += data  # type: ignore[index]
                    if not data:
                        open_ones.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
        self.wait(_left(end))
        stdout, stderr = (bytes(data).decode() for data in self._read.values())
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def start(
    stage: str, flags: Sequence[str], env: Mapping[str, str], new_session: bool = False, folder: Path = ROOT
) -> Fork:
    """Start `python -m services.<stage>`, or `python -m provision`, with this environment and no input."""
    with _STARTING:  # threads that come at once share a server
        server = _server(stage)
    pipes = [os.pipe() for _ in range(3)]
    request = json.dumps(
        {"flags": list(flags), "env": dict(env), "new_session": new_session, "folder": str(folder)}
    ).encode()
    try:
        socket.send_fds(server, [request], [writing for _, writing in pipes])
    finally:
        for _, writing in pipes:
            os.close(writing)
    return Fork([_module(stage), *flags], *(reading for reading, _ in pipes))


def _module(stage: str) -> str:
    return stage if stage == "provision" else f"services.{stage}"


@cache
def _server(stage: str) -> socket.socket:
    """Return the connection to a stage's fork server, which ends when the connection is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"LANG": "C.UTF-8"}
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.forks", stage, str(theirs.fileno())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours


def _serve(stage: str, requests: socket.socket) -> dict[str, Any]:
    """Fork for each request, and write process id and exit code to its status pipe. Returns only in the forks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the test run
    running: dict[int, tuple[int, int]] = {}
    while True:
        sources: list[Any] = [requests, *running]
        readable = select.select(sources, [], [])[0]
        for ready in readable:
            if ready is not requests:
                child, status = running.pop(ready)
                os.close(ready)
                _tell(status, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                os.close(status)
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 3)
            if not message:
                os._exit(0)
            status, *streams = descriptors
            child = os.fork()
            if child == 0:
                request: dict[str, Any] = json.loads(message)
                if request["new_session"]:
                    os.setsid()
                _tell(status, os.getpid())
                for descriptor in (status, *running, *(other for _, other in running.values())):
                    os.close(descriptor)
                requests.close()
                for number, stream in enumerate(streams, 1):
                    os.dup2(stream, number)
                    os.close(stream)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return request
            for stream in streams:
                os.close(stream)
            running[os.pidfd_open(child)] = child, status


def _tell(status: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody asks any more
        os.write(status, _NUMBER.pack(number))


def main(stage: str, descriptor: int) -> None:
    """Serve forks of a stage; in each of them, run it."""
    module = _module(stage)
    importlib.import_module(f"{module}.__main__")
    del sys.modules[f"{module}.__main__"]  # each fork runs it
    for name in (*IMPORTED_LATER_BY_MANY, *IMPORTED_LATER.get(stage, ())):
        with suppress(ImportError):
            importlib.import_module(name)
    if stage == "provision":
        _load_login_plugins()
    with suppress(ImportError):
        if "larder.sample.picture" in sys.modules:
            _draw_sample()
    with suppress(ImportError):  # reads botocore's models once, instead of in each fork
        from larder.store import StoreSettings, make_client

        make_client(
            StoreSettings.load("store", [], {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"})
        )
    assert threading.active_count() == 1, "a fork would lack the others"
    gc.freeze()
    request = _serve(stage, socket.socket(fileno=descriptor))
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[1:] = request["flags"]
    os.chdir(request["folder"])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, int | None):
            _exit(ended.code or 0)
        raise


def _load_login_plugins() -> None:
    """Read the entry points of all packages once, instead of in each fork."""
    from keystoneauth1 import loading

    loading.get_plugin_loader("password")


def _draw_sample() -> None:
    """Generate the sample of 66 images once, since many tests extract and verify it."""
    from larder.sample import picture, plan_images

    picture.render = cache(picture.render)
    for image in plan_images(66):
        picture.render(0, image)


def _exit(code: int) -> None:
    """End like an interpreter, but without freeing memory: unloading modules takes longer than a run."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
