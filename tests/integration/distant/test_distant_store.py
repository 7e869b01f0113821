"""A real store behind a slow link. Time is counted, not measured, by a clock that only waiting moves on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from larder.distant.find import QUESTION, find_link
from larder.distant.link import BURST_SECONDS, Link
from larder.distant.process import open_distant_store, split_address
from larder.distant.proxy import DistantProxy, make_loop
from larder.errors import ConfigurationError
from larder.store import StoreSettings, make_client
from tests.conftest import Store, Until

pytestmark = pytest.mark.any_store
RTT = 0.08


class VirtualTimer:
    """A clock that stands still, except while something waits."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, when: float) -> None:
        self.time = max(self.time, when)


@contextmanager
def virtual_proxy(target: tuple[str, int], link: Link) -> Iterator[tuple[str, DistantProxy, VirtualTimer]]:
    """Serve in a thread: the endpoint, the proxy and its clock."""
    timer, loop = VirtualTimer(), make_loop()
    proxy = DistantProxy(target, link, timer)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = loop.create_task(proxy.serve(listener))
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", proxy, timer

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        assert serving.cancelled()


def client_of(store: Store, endpoint: str) -> Any:
    return make_client(StoreSettings.load("test", [], store.env | {"S3_ENDPOINT_URL": endpoint}))


def test_each_request_takes_a_round_trip_and_a_connection_one_more(store: Store, bucket: str) -> None:
    """The store checks the signatures of what the proxy forwards; it would answer 403."""
    with virtual_proxy(split_address(store.endpoint), Link(RTT, None)) as (endpoint, proxy, timer):
        client = client_of(store, endpoint)
        for number in range(4):
            client.put_object(Bucket=bucket, Key=f"key {number}/ü", Body=b"x" * number)
        for number in range(4):
            assert client.get_object(Bucket=bucket, Key=f"key {number}/ü")["Body"].read() == b"x" * number
        traffic = proxy.traffic
    assert traffic.connections >= 1
    assert traffic.turns >= 8
    # Each turn and each connection takes a round trip. What a client or a store sends in several parts may come later
    # on this clock, which moves on between them, by half of one.
    least = RTT * (traffic.connections + traffic.turns)
    assert least - RTT / 2 <= timer.time <= 2 * least


def test_bandwidth_is_shared_by_all_connections(store: Store, bucket: str) -> None:
    content = os.urandom(3 << 20)
    link = Link(0.0, 100_000_000)
    with virtual_proxy(split_address(store.endpoint), link) as (endpoint, proxy, timer):
        client = client_of(store, endpoint)
        client.put_object(Bucket=bucket, Key="content", Body=content)
        uploaded_at = timer.time
        with ThreadPoolExecutor(4) as pool:
            bodies = list(pool.map(lambda _: client.get_object(Bucket=bucket, Key="content")["Body"].read(), range(4)))
        assert all(body == content for body in bodies)
        traffic, ended_at = proxy.traffic, timer.time
    assert uploaded_at >= len(content) * 8 / 100e6 - BURST_SECONDS
    assert traffic.received_bytes >= 4 * len(content)
    assert ended_at - uploaded_at >= 4 * len(content) * 8 / 100e6 - BURST_SECONDS
    assert ended_at <= (traffic.sent_bytes + traffic.received_bytes) * 8 / 100e6 + 1


def test_the_process_counts_its_traffic_and_ends_with_the_block(
    store: Store, bucket: str, tmp_path: Path, until: Until
) -> None:
    content = os.urandom(1 << 20)
    with open_distant_store(store.endpoint, Link(0.002, 1_000_000_000), tmp_path) as distant:
        client = client_of(store, distant.endpoint)
        client.put_object(Bucket=bucket, Key="content", Body=content)
        assert client.get_object(Bucket=bucket, Key="content", Range="bytes=0-9")["Body"].read() == content[:10]
        assert client.get_object(Bucket=bucket, Key="content")["Body"].read() == content
        traffic = distant.traffic()
        [process] = [each for each in psutil.Process().children() if "larder.distant" in each.cmdline()]
    assert traffic.turns >= 3
    assert traffic.sent_bytes > len(content)
    assert traffic.received_bytes > len(content)
    assert not process.is_running()


def test_a_link_tells_what_it_is_and_a_store_does_not(store: Store, bucket: str, tmp_path: Path) -> None:
    link = Link(0.002, 1_000_000_000)
    with open_distant_store(store.endpoint, link, tmp_path) as distant:
        assert find_link(distant.endpoint) == link
        client = client_of(store, distant.endpoint)
        client.put_object(Bucket=bucket, Key="question", Body=QUESTION)
        assert client.get_object(Bucket=bucket, Key="question")["Body"].read() == QUESTION
    assert find_link(store.endpoint) is None


def test_only_the_begin_of_a_connection_asks_for_the_link(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            open_distant_store(endpoint, Link(0.0, None), tmp_path) as distant,
            socket.create_connection(split_address(distant.endpoint), timeout=30) as client,
        ):
            server, _ = listener.accept()
            with server:
                client.sendall(b"PUT")
                assert server.recv(3) == b"PUT"
                client.sendall(QUESTION)
                assert server.recv(len(QUESTION), socket.MSG_WAITALL) == QUESTION


def test_a_store_that_is_down_is_a_broken_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        open_distant_store(f"http://127.0.0.1:{port}", Link(0.0, None), tmp_path) as distant,
        socket.create_connection(split_address(distant.endpoint)) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.recv(1)


def test_a_store_that_breaks_off_breaks_the_clients_connection(tmp_path: Path, until: Until) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            open_distant_store(endpoint, Link(0.001, None), tmp_path) as distant,
            socket.create_connection(split_address(distant.endpoint)) as client,
        ):
            server, _ = listener.accept()
            server.sendall(b"a part")
            assert client.recv(100) == b"a part"
            server.close()
            assert client.recv(100) == b""


def test_a_connection_that_can_not_be_accepted_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    accept, faults = asyncio.SelectorEventLoop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def fail_once(self: Any, listener: socket.socket) -> Any:
        if faults:
            raise faults.pop()
        return await accept(self, listener)

    monkeypatch.setattr(type(make_loop()), "sock_accept", fail_once)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        virtual_proxy(server.getsockname(), Link(0.0, None)) as (endpoint, _, _),
        socket.create_connection(split_address(endpoint), timeout=30) as client,
    ):
        client.sendall(b"GET")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b"GET"
        assert not faults


def test_a_store_with_tls_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="certificate"),
        open_distant_store("https://127.0.0.1:1", Link(0.0, None), tmp_path),
    ):
        pass
