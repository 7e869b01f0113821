"""A proxy in front of a store: it counts requests, and misbehaves as a test wants."""

from __future__ import annotations

import http.client
import re
import select
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.waiting import wait_until

Fault = Callable[[str, str, int], "int | str | None"]

"""Called with the method, path and number of a request.

None forwards the request. An HTTP status is sent in the store's place.

- "reset-request" and "reset-response" break the connection (TCP RST) in the middle of the body.
- "corrupt" answers with zeros; "corrupt-request" forwards zeros.
- "no-checksum" answers without a checksum; "no-digest" also with an ETag that isn't a digest.
"""


LINK = "/_larder/link"
"""Asks whether this is larder's link. It doesn't count as a request to the store."""


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a store, records requests and bytes, and injects faults."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.target = urlsplit(target)
        self.requests: list[tuple[str, str]] = []
        self.copies = 0
        """Objects that the store was asked to copy by itself."""
        self.checksums = 0
        """Objects that came with a checksum beside the MD5."""
        self.body_bytes_sent = 0
        """Bytes of answers' bodies."""
        self.fault: Fault = lambda method, path, number: None
        self.lock = threading.Lock()
        self.clients: set[tuple[str, int]] = set()
        """Those that haven't gone yet, or whose last request isn't answered yet."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.clients.add(client_address)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.clients.discard(client_address)

    def settle(self) -> None:
        """Wait until all clients have gone and the store has answered them, so that nothing changes any more."""
        with socket.create_connection(("127.0.0.1", self.server_port)) as last:  # accepted after all earlier clients
            wait_until(lambda: last.getsockname() in self.clients, "the proxy takes up its clients")
        wait_until(lambda: not self.clients, "the proxy's clients have gone")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore killed clients and reset connections."""

    def count(self, method: str, part: str = "") -> int:
        """Count the requests with this method and `part` in their path."""
        return sum(made == method and part in path for made, path in self.requests)


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def do_any(self) -> None:
        if self.path == LINK:
            return self._answer(404, {"Content-Type": "application/xml"}, b"")
        with self.server.lock:
            path = re.sub(r"[?&]x-id=\w+$", "", self.path)  # the operation's name, which some clients add
            self.server.requests.append((self.command, path))
            self.server.copies += "x-amz-copy-source" in self.headers
            self.server.checksums += "x-amz-checksum-crc32c" in self.headers
            number = len(self.server.requests)
        fault = self.server.fault(self.command, path, number)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "reset-request":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if len(body) < length:  # the client died: the store would wait for the rest
            return self._reset()
        if isinstance(fault, int):
            code = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 501: "NotImplemented", 503: "SlowDown"}
            headers = {"Content-Type": "application/xml", "x-amz-request-id": "0"}
            return self._answer(fault, headers, f"<Error><Code>{code[fault]}</Code></Error>".encode())
        status, headers, answer = self._forward(bytes(len(body)) if fault == "corrupt-request" else body)
        if fault == "corrupt":
            answer = bytes(len(answer))
        if fault in ("no-checksum", "no-digest"):
            headers = {name: value for name, value in headers.items() if "checksum" not in name.lower()}
            headers |= {"ETag": '"0123"'} if fault == "no-digest" else {}
        return self._answer(status, headers, answer, broken=fault == "reset-response")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not hasattr(self, "upstream"):
            target = self.server.target
            kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
            self.upstream = kind(target.netloc, timeout=60)
        if self.upstream.sock and select.select([self.upstream.sock], [], [], 0)[0]:
            self.upstream.close()  # the store has closed it while it was idle; it opens again by itself
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                self.upstream.putheader(name, value)
        self.upstream.endheaders(body)
        answer = self.upstream.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, broken: bool = False) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        dropped = ("content-length", "transfer-encoding", "connection")
        for name, value in headers.items():
            if name.lower() not in dropped:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if broken:
            self.wfile.write(body[: len(body) // 2])
            return self._reset()
        with self.server.lock:  # before the body: a test that has the answer finds it counted
            self.server.body_bytes_sent += len(body)
        if self.command != "HEAD":
            self.wfile.write(body)
        return None

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""
