"""Which responses tell of a link."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from larder.distant.find import QUESTION, find_link, make_answer
from larder.distant.link import Link
from tests.conftest import free_ports


@contextmanager
def responding(response: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one connection with some bytes: the address, and what was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(1000))
                connection.sendall(response)

        thread = Thread(target=respond)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join()


def body(content: object) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + json.dumps(content).encode()


@pytest.mark.parametrize("link", [Link(0.02, 200_000_000), Link(0.0, None)])
def test_the_answer_of_a_link_is_understood(link: Link) -> None:
    with responding(make_answer(link)) as (endpoint, asked):
        assert find_link(endpoint) == link
    assert asked[0].startswith(QUESTION)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 403 Forbidden\r\n\r\n<Error/>",
        b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult/>",
        b"HTTP/1.1 200 OK\r\n\r\n{" + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 2000,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        body([]),
        body({}),
        body({"link": 20}),
        body({"link": {"latency_s": "20ms", "bits_per_s": None}}),
        body({"link": {"latency_s": True, "bits_per_s": None}}),
        body({"link": {"latency_s": -1, "bits_per_s": None}}),
        body({"link": {"latency_s": 1e9, "bits_per_s": None}}),
        body({"link": {"latency_s": 0.02, "bits_per_s": 0}}),
        body({"link": {"latency_s": 0.02, "bits_per_s": "200mbit"}}),
    ],
)
def test_other_responses_tell_of_none(response: bytes) -> None:
    with responding(response) as (endpoint, _):
        assert find_link(endpoint) is None


def test_an_address_without_a_link() -> None:
    for endpoint in (
        "",
        "https://store:9000",
        "http://",
        "http://[",
        "http://store:x",
        f"http://127.0.0.1:{free_ports(1)[0]}",
    ):
        assert find_link(endpoint) is None
