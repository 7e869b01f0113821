"""A slow way to the cloud: a request is held on it, and reaches the cloud although its client has died meanwhile."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HELD_SECONDS = 120.0
"""A test that forgets to release its request ends by this."""


class SlowCloud(ThreadingHTTPServer):
    """An HTTP proxy, as `http_proxy` names it, that holds the first request of a kind until it is released."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, method: str, end: str) -> None:
        """Hold the first request with this method whose path ends so."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.environ = {"http_proxy": f"http://127.0.0.1:{self.server_port}", "no_proxy": ""}
        self.method, self.end = method, end
        self.arrived = threading.Event()
        self.released = threading.Event()
        self.statuses: list[int] = []
        """The cloud's answer to the held request."""
        self._lock = threading.Lock()

    def holds(self, method: str, path: str) -> bool:
        """Return whether this is the request to hold."""
        with self._lock:
            is_it = method == self.method and path.endswith(self.end) and not self.arrived.is_set()
            if is_it:
                self.arrived.set()
        return is_it

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore killed clients."""


class _Handler(BaseHTTPRequestHandler):
    server: SlowCloud

    def do_any(self) -> None:
        target = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_held = self.server.holds(self.command, target.path)
        if is_held:
            self.server.released.wait(HELD_SECONDS)
        cloud = http.client.HTTPConnection(target.netloc, timeout=120)
        path = target.path + (f"?{target.query}" if target.query else "")
        headers = {name: value for name, value in self.headers.items() if name.lower() != "proxy-connection"}
        cloud.request(self.command, path, body or None, headers | {"Connection": "close"})
        answer = cloud.getresponse()
        content = answer.read()
        if is_held:
            self.server.statuses.append(answer.status)
        with suppress(OSError):  # its client has died
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do_any

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def slow_cloud(method: str, end: str) -> Iterator[SlowCloud]:
    """Run a slow way to the cloud."""
    server = SlowCloud(method, end)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
