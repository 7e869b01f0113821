"""Forward TCP connections to a store over a slow link."""

from __future__ import annotations

import asyncio
import mmap
import select
import selectors
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from larder.distant.find import QUESTION, make_answer
from larder.distant.link import Bandwidth, Link

IN_FLIGHT_BYTES = 2 << 20
"""Bytes that are under way in one direction of a connection: half of a TCP window of 4 MiB. Its other half has arrived,
with the acknowledgement under way."""
_CHUNK_SECONDS = 0.002
_MIN_CHUNK, _MAX_CHUNK = 4 << 10, 256 << 10
_COUNTERS = struct.Struct("4Q")
_ACCEPT_PAUSE_SECONDS = 0.1


class Traffic(NamedTuple):
    """What a proxy has forwarded so far."""

    connections: int = 0
    turns: int = 0
    """Times that a client sent something after it had received something, and first times: requests, in HTTP/1.1."""
    sent_bytes: int = 0
    """From clients to the store."""
    received_bytes: int = 0
    """From the store to clients."""


class Timer(Protocol):
    """A clock that can be waited for."""

    def now(self) -> float:
        """Return the time in seconds."""

    async def sleep_until(self, when: float) -> None:
        """Wait for a time; return at once if it has passed."""


class LoopTimer:
    """The clock of the running event loop."""

    def now(self) -> float:
        """Return the time in seconds."""
        return asyncio.get_running_loop().time()

    async def sleep_until(self, when: float) -> None:
        """Wait for a time; return at once if it has passed."""
        seconds = when - self.now()
        if seconds > 0:
            await asyncio.sleep(seconds)


class CounterFile:
    """Traffic in a file that another process reads while it grows."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_COUNTERS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _COUNTERS.size)

    def write(self, traffic: Traffic) -> None:
        """Replace the counters."""
        _COUNTERS.pack_into(self._memory, 0, *traffic)


def read_counters(path: Path) -> Traffic:
    """Return the traffic in a file of counters."""
    return Traffic(*_COUNTERS.unpack(path.read_bytes()))


class DistantProxy:
    """Forwards connections to `target` over `link`.

    Args:
        target: Host and port of the store.
        link: What is added on the way.
        timer: The clock; tests replace it.
        counters: Where the traffic is also counted.
    """

    def __init__(self, target: tuple[str, int], link: Link, timer: Timer, counters: CounterFile | None = None) -> None:
        self.traffic = Traffic()
        self.target, self.link, self.timer = target, link, timer
        self._counters = counters
        self.up, self.down = (Bandwidth(link.bits_per_s, timer.now) for _ in range(2))
        rate = link.bits_per_s / 8 if link.bits_per_s else float("inf")
        self.chunk_bytes = int(min(max(rate * _CHUNK_SECONDS, _MIN_CHUNK), _MAX_CHUNK))
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections, forever."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError:  # too many open files, or a client that has gone already
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            task = loop.create_task(self._forward(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def count(self, connections: int = 0, turns: int = 0, sent: int = 0, received: int = 0) -> None:
        """Add to the traffic."""
        old = self.traffic
        self.traffic = Traffic(
            old.connections + connections, old.turns + turns, old.sent_bytes + sent, old.received_bytes + received
        )
        if self._counters is not None:
            self._counters.write(self.traffic)

    async def _forward(self, client: socket.socket) -> None:
        opened_at = self.timer.now() + self.link.latency_s
        self.count(connections=1)
        with client:
            _prepare(client)
            try:
                store = await _connect(self.target)
            except OSError:
                _reset(client)  # the store is down, and so is the link
                return
            with store:
                _prepare(store)
                connection = _Connection(self)
                ways = (
                    _Way(connection, client, store, is_up=True, opened_at=opened_at),
                    _Way(connection, store, client, is_up=False, opened_at=opened_at),
                )
                tasks = [asyncio.ensure_future(part) for way in ways for part in (way.take_up(), way.deliver())]
                try:
                    await asyncio.gather(*tasks)
                except _AnsweredError:
                    pass
                except OSError:  # one side has reset the connection: the other one learns it
                    _reset(client)
                    _reset(store)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)


class _AnsweredError(Exception):
    """A client asked for the link, and has the answer."""


class _Connection:
    """What both directions of a connection share."""

    def __init__(self, proxy: DistantProxy) -> None:
        self.proxy = proxy
        self.is_turn = True

    def count(self, length: int, *, is_up: bool) -> None:
        turns = int(is_up and self.is_turn)
        self.is_turn = not is_up
        self.proxy.count(turns=turns, sent=length * is_up, received=length * (not is_up))


class _Way:
    """One direction of a connection."""

    def __init__(
        self, connection: _Connection, source: socket.socket, sink: socket.socket, *, is_up: bool, opened_at: float
    ) -> None:
        self._connection, self._source, self._sink = connection, source, sink
        self._is_up, self._opened_at = is_up, opened_at
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._bytes_under_way = 0
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def take_up(self) -> None:
        """Read, and send through the link, until the end of the source."""
        proxy, loop = self._connection.proxy, asyncio.get_running_loop()
        timer, delay = proxy.timer, proxy.link.latency_s / 2
        bandwidth = proxy.up if self._is_up else proxy.down
        await timer.sleep_until(self._opened_at)
        is_first = True
        while True:
            await self._has_room.wait()
            data = await loop.sock_recv(self._source, proxy.chunk_bytes)
            if is_first and self._is_up and data.startswith(QUESTION):
                await loop.sock_sendall(self._source, make_answer(proxy.link))
                raise _AnsweredError
            is_first = False
            left_at = bandwidth.send(len(data))
            if data:
                self._connection.count(len(data), is_up=self._is_up)
                await timer.sleep_until(left_at)  # so that connections take turns on a busy link
            self._bytes_under_way += len(data)
            if self._bytes_under_way >= IN_FLIGHT_BYTES:
                self._has_room.clear()
            self._under_way.put_nowait((left_at + delay, data))
            if not data:
                return

    async def deliver(self) -> None:
        """Hand over what comes out of the link."""
        timer, loop = self._connection.proxy.timer, asyncio.get_running_loop()
        while True:
            due, data = await self._under_way.get()
            await timer.sleep_until(due)
            if not data:
                with suppress(OSError):  # the other side has gone
                    self._sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(self._sink, data)
            self._bytes_under_way -= len(data)
            if self._bytes_under_way < IN_FLIGHT_BYTES:
                self._has_room.set()


def _prepare(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(connection: socket.socket) -> None:
    """Have the coming close end a connection with RST, as a broken link does."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _connect(target: tuple[str, int]) -> socket.socket:
    loop = asyncio.get_running_loop()
    fault: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(*target, type=socket.SOCK_STREAM):
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, address)
        except OSError as error:
            made.close()
            fault = error
        else:
            return made
    raise fault or OSError(f"{target[0]} has no address")


if hasattr(selectors, "EpollSelector"):

    class _FineSelector(selectors.EpollSelector):
        """Waits to the microsecond: epoll rounds up to milliseconds, which is much in a round trip of 5 ms."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)


def make_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with precise timers."""
    return asyncio.SelectorEventLoop(_FineSelector() if hasattr(selectors, "EpollSelector") else None)
