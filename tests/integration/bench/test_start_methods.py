"""Workers that aren't forks of the stage, the default of Python 3.14 on Linux."""

from __future__ import annotations

import json
import multiprocessing
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests import forks
from tests.conftest import Proxy, Store
from tests.integration.bench.conftest import OURS

ROOT = Path(__file__).resolve().parents[3]
one_store = pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)
SCRIPT = """
import multiprocessing, runpy, sys

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    runpy.run_module("services.bench", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, str, dict[str, Any]]]:
    """Run an arm with a start method of workers: its exit code, stderr and record."""

    def run_bench(method: str, arm: str, environ: Mapping[str, str]) -> tuple[int, str, dict[str, Any]]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        ours = {
            "PYTHONPATH": str(ROOT),
            "LARDER_WORKERS": "1",
            "LARDER_BATCH_SIZE": "8",
            "LARDER_WARMUP_BATCHES": "0",
            "LARDER_RESULTS": str(tmp_path / "results"),
            "LARDER_LOG": "json",
        }
        env = known | ours | dict(environ)
        if method == multiprocessing.get_start_method():
            with forks.start("bench", ["--arm", arm], env) as process:
                stdout, stderr = process.communicate(timeout=400)
            return process.returncode or 0, stderr, json.loads(stdout) if stdout else {}
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)
        done = subprocess.run(
            [sys.executable, str(script), method, "--arm", arm],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return done.returncode, done.stderr, json.loads(done.stdout) if done.stdout else {}

    return run_bench


@pytest.mark.exhaustive  # the first case of the next test has such workers, too
@one_store
@pytest.mark.parametrize(
    ("method", "arm"),
    [("forkserver", "webdataset"), ("forkserver", "imagefolder_local"), ("spawn", "litdata_streaming")],
)
def test_an_arm(run: Any, packed: dict[str, str], method: str, arm: str) -> None:
    code, err, record = run(method, arm, packed)
    assert code == 0, err
    assert record["images"] == 40
    if arm != "imagefolder_local":
        assert record["network_bytes"] >= 40, "what workers fetch is counted in all processes"
    assert all(json.loads(line)["stage"] == "bench" for line in err.splitlines()), err


@contextmanager
def serving(server: Proxy) -> Iterator[Proxy]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def behind_tls(store: Store, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that reach the store by TLS, with a certificate of a private authority."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    server = Proxy(store.endpoint)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        yield {
            "S3_ENDPOINT_URL": server.endpoint.replace("http:", "https:"),
            "AWS_CA_BUNDLE": str(tmp_path / "authority.pem"),
        }


@one_store
@pytest.mark.parametrize(
    ("method", "arm"),
    [("forkserver", "litdata_streaming"), pytest.param("fork", "webdataset", marks=pytest.mark.exhaustive)],
)
def test_an_authority_of_the_users_own(
    run: Any, packed: dict[str, str], behind_tls: dict[str, str], method: str, arm: str
) -> None:
    code, err, record = run(method, arm, packed | behind_tls)
    assert code == 0, err
    assert record["images"] == 40


class Relay(Proxy):
    """An HTTP proxy. Requests have whole URLs, which the handler treats as paths."""


@pytest.mark.exhaustive
@one_store
@pytest.mark.parametrize("arm", ["litdata_streaming", "webdataset"])
def test_a_proxy(run: Any, store: Store, packed: dict[str, str], arm: str) -> None:
    relay = Relay(store.endpoint)
    with serving(relay):
        unknown = "http://store.test"  # a name that the proxy alone could resolve
        for name in ("HTTP_PROXY", "http_proxy"):
            packed = packed | {name: relay.endpoint}
        packed = packed | {"S3_ENDPOINT_URL": unknown, "NO_PROXY": "", "no_proxy": ""}
        code, err, record = run("fork", arm, packed)
    assert code == 0, err
    assert record["images"] == 40
    assert any(path.startswith(unknown) and path.endswith((".bin", ".tar")) for _, path in relay.requests)
