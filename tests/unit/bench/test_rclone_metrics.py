"""rclone's metrics: requesting and parsing them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest

from larder.bench import rclone_metrics
from larder.errors import ServiceError

# As rclone 1.75.2 gives them.
METRICS = """\
# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.25
# HELP rclone_bytes_transferred_total Total transferred bytes since the start of the Rclone process
# TYPE rclone_bytes_transferred_total counter
rclone_bytes_transferred_total 2.034034e+06
rclone_entries_listed_total 80
rclone_files_transferred_total 24
# TYPE rclone_http_status_code counter
rclone_http_status_code{code="200",host="",method="GET"} 4
rclone_http_status_code{code="200",host="",method="HEAD"} 24
rclone_http_status_code{code="206",host="a}b",method="GET"} 24
rclone_http_status_codes_of_another_kind 7
rclone_speed 0
"""
NONE_YET = "rclone_bytes_transferred_total 0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(METRICS, (2034034, 52), id="all-codes-and-methods"),
        pytest.param(NONE_YET, (0, 0), id="before-the-first-request"),
        pytest.param("rclone_bytes_transferred_total 1.2345678901e+10\n", (12345678901, 0), id="many-bytes"),
    ],
)
def test_totals(text: str, expected: Any) -> None:
    assert rclone_metrics.parse(text) == expected


@pytest.mark.parametrize("text", ["", "up 1\n", "# HELP rclone_bytes_transferred_total Total\n"])
def test_metrics_of_something_else(text: str) -> None:
    with pytest.raises(ValueError, match="rclone_bytes_transferred_total"):
        rclone_metrics.parse(text)


def test_cpu_time() -> None:
    assert rclone_metrics.parse_cpu_seconds(METRICS) == 1.25
    with pytest.raises(ValueError, match="process_cpu_seconds_total"):
        rclone_metrics.parse_cpu_seconds(NONE_YET)


class Server(UnixStreamServer):
    answer = (200, "")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, text = self.server.answer if self.path == "/metrics" else (404, "")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""

    def address_string(self) -> str:
        return "a socket"


@pytest.fixture
def serve() -> Iterator[Callable[[Path, int, str], None]]:
    """Serves an answer on a Unix socket, in a folder of any depth."""
    running = []

    def start(place: Path, status: int, text: str) -> None:
        folder = os.open(place.parent, os.O_RDONLY)
        server = Server(f"/proc/self/fd/{folder}/{place.name}", Handler)
        os.close(folder)
        server.answer = (status, text)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("depth", [0, 9])
def test_reads_from_a_socket_in_a_folder_of_any_depth(
    tmp_path: Path, serve: Callable[[Path, int, str], None], depth: int
) -> None:
    folder = tmp_path.joinpath(*["a-long-name-of-a-folder"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    assert depth == 0 or len(str(folder)) > 200
    serve(folder / ".rclone.sock", 200, METRICS)
    before = len(os.listdir("/proc/self/fd"))
    assert rclone_metrics.read_traffic(folder / ".rclone.sock") == (2034034, 52)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the server's side may still be closing


def stale(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place))


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(lambda place: None, "No such file or directory", id="no-socket"),
        pytest.param(stale, "Connection refused", id="nobody-behind-it"),
    ],
)
def test_nobody_answers(tmp_path: Path, prepare: Callable[[Path], None], reason: str) -> None:
    place = tmp_path / ".rclone.sock"
    prepare(place)
    with pytest.raises(ServiceError, match=f"{place}: {reason}") as caught:
        rclone_metrics.read_traffic(place)
    assert "--metrics-addr" in caught.value.next_step


@pytest.mark.parametrize(("status", "text"), [(200, "up 1\n"), (500, METRICS)])
def test_something_else_answers(
    tmp_path: Path, serve: Callable[[Path, int, str], None], status: int, text: str
) -> None:
    serve(tmp_path / "s", status, text)
    with pytest.raises(ServiceError) as caught:
        rclone_metrics.read_traffic(tmp_path / "s")
    assert "--metrics-addr" in caught.value.next_step
