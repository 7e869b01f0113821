"""A server that sends exactly the bytes of a test, without an HTTP library."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple


class Request(NamedTuple):
    """A client's request."""

    line: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path with its query."""
        return self.line.split(" ")[1]


Send = Callable[[bytes], None]
Answer = Callable[[Request, "Talk"], None]


class Talk:
    """One connection."""

    def __init__(self, connection: socket.socket, ended: threading.Event) -> None:
        self._connection, self._ended = connection, ended

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.sendall(data)

    def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """Send one byte at a time while the client listens."""
        for place in range(len(data)):
            if self._ended.wait(seconds):
                return
            self.send(data[place : place + 1])

    def flood(self, data: bytes) -> None:
        """Send the same bytes repeatedly while the client listens."""
        while not self._ended.is_set():
            self.send(data)

    def hush(self) -> None:
        """Send nothing until the test has ended or the client has gone."""
        while not self._ended.is_set():
            with suppress(TimeoutError):
                self._connection.settimeout(0.05)
                if not self._connection.recv(1 << 16):
                    return


class Liar:
    """The server. It calls `answer` for each request, then closes the connection."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._listening = socket.create_server((host, 0))
        self._listening.settimeout(0.05)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.host, self.port = host, self._listening.getsockname()[1]
        self.answer: Answer = lambda request, talk: None
        self.asked: list[Request] = []
        self.connections = 0
        self._context: ssl.SSLContext | None = None

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._context = context

    @property
    def url(self) -> str:
        """Its address, for http."""
        return f"http://{self.host}:{self.port}"

    def serve(self) -> None:
        """Serve until `end`."""
        while not self._ended.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listening.accept()
                self.connections += 1
                thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def end(self, serving: threading.Thread) -> None:
        """End `serve`, which runs in a thread, and all connections."""
        self._ended.set()
        serving.join()
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError), connection:
            connection.settimeout(10)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            line = lines.readline().decode("latin-1").strip()
            headers = {}
            while (header := lines.readline().decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.strip().lower()] = value.strip()
            request = Request(line, headers)
            self.asked.append(request)
            self.answer(request, Talk(connection, self._ended))
            connection.shutdown(socket.SHUT_WR)


@contextmanager
def lying(host: str = "127.0.0.1") -> Iterator[Liar]:
    """Run a server while the block runs."""
    liar = Liar(host)
    thread = threading.Thread(target=liar.serve, daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        liar.end(thread)
