"""This machine's address, and the rules in a cloud's answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError, LarderError, ServiceError
from provision import networks
from provision.networks import _covers, caller_network

WAYS = [(socket.AF_INET6, ("::1", 5000, 0, 0)), (socket.AF_INET, ("127.0.0.1", 5000))]
"""To a cloud with addresses of both kinds, in the order in which systems prefer them."""


def test_an_address_of_ipv4_is_preferred_since_floating_ips_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(family, socket.SOCK_DGRAM, 17, "", target) for family, target in WAYS]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: answers)
    config = SimpleNamespace(get_auth_args=lambda: {"auth_url": "http://cloud.invalid:5000/v3"})
    site = SimpleNamespace(connection=SimpleNamespace(config=config))
    assert (
        caller_network(cast(Any, SimpleNamespace(caller=None, clouds=SimpleNamespace(compute=site)))) == "127.0.0.1/32"
    )


class _BehindARouter:
    """A socket from a private address to a public one, which sends nothing."""

    def __init__(self, *words: object) -> None: ...
    def __enter__(self) -> _BehindARouter:
        return self

    def __exit__(self, *words: object) -> None: ...
    def connect(self, target: object) -> None: ...
    def getsockname(self) -> tuple[str, int]:
        return "192.168.1.2", 40000


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], None]], str]]:
    """Return the result of `caller` for a service's answer, behind a router."""
    started: list[ThreadingHTTPServer] = []

    def asked(answer: Callable[[Any], None]) -> str:
        handler = type("Handler", (BaseHTTPRequestHandler,), {"do_GET": answer, "log_message": lambda *words: None})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = SimpleNamespace(get_auth_args=lambda: {"auth_url": "http://cloud.invalid:5000/v3"})
        declared = SimpleNamespace(caller_service=f"http://127.0.0.1:{server.server_port}/")
        site = SimpleNamespace(connection=SimpleNamespace(config=config))
        stack = SimpleNamespace(caller=None, clouds=SimpleNamespace(compute=site), declaration=declared)
        with monkeypatch.context() as patch:
            ways = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("8.8.8.8", 5000))]
            patch.setattr(
                networks,
                "socket",
                SimpleNamespace(
                    getaddrinfo=lambda *words, **options: ways,
                    socket=_BehindARouter,
                    AF_INET=socket.AF_INET,
                    SOCK_DGRAM=socket.SOCK_DGRAM,
                ),
            )
            return caller_network(cast(Any, stack))

    yield asked
    for server in started:
        server.shutdown()
        server.server_close()


def text(body: bytes, status: int = 200, **headers: str) -> Callable[[Any], None]:
    def answer(request: Any) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("body", "network"), [(b"8.8.8.8\n", "8.8.8.8/32"), (b"2001:4860:4860::8888", "2001:4860:4860::8888/128")]
)
def test_the_service_names_one_public_address(
    asked: Callable[[Callable[[Any], None]], str], body: bytes, network: str
) -> None:
    assert asked(text(body)) == network


@pytest.mark.parametrize(
    "answer",
    [
        text(b"0.0.0.0/0"), text(b"8.8.8.0/24"), text(b"127.0.0.1"), text(b"10.0.0.1"), text(b"::/0"), text(b""),
        text(b"<html>8.8.8.8</html>"), text(b"8.8.8.8" + b" " * 1000), text(b"\xff\xfe"), text(b"8.8.8.8", 500),
        text(b"", 302, Location="http://127.0.0.1:1/"), text(b"", 302, Location="file:///etc/hostname"),
    ],
    ids=["everybody", "a network", "loopback", "private", "everybody in IPv6", "nothing", "a page", "too much",
         "no text", "a failure", "a redirect", "a redirect to a file"],
)  # fmt: skip
def test_no_other_answer_opens_anything(
    asked: Callable[[Callable[[Any], None]], str], answer: Callable[[Any], None]
) -> None:
    with pytest.raises(LarderError) as caught:
        asked(answer)
    assert isinstance(caught.value, ConfigurationError | ServiceError) and "--caller" in caught.value.next_step


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_slow_service_is_given_up(
    asked: Callable[[Callable[[Any], None]], str], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(networks, "CALLER_SECONDS", 0.5)
    over = threading.Event()

    def drips(request: Any) -> None:
        if part == "body":
            request.send_response(200)
            request.end_headers()
        while not over.wait(0.05):
            request.wfile.write(b"1")

    try:
        with pytest.raises(ConfigurationError, match="didn't answer within"):
            asked(drips)
    finally:
        over.set()


def rule(prefix: object, version: str = "IPv4") -> dict[str, object]:
    return {
        "direction": "ingress",
        "remote_group_id": None,
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "ethertype": version,
        "remote_ip_prefix": prefix,
    }


@pytest.mark.parametrize(
    ("prefix", "covers"),
    [(None, True), ("0.0.0.0/0", True), ("192.0.2.9/24", True), ("198.51.100.0/24", False), ("::/0", False)],
)
def test_a_rule_lets_in_what_its_network_holds(prefix: object, covers: bool) -> None:
    assert _covers(rule(prefix), 22, "192.0.2.7/32") == covers


@pytest.mark.parametrize("prefix", ["everybody", "192.0.2.0/99", 7, "fe80::1%x/64"])
def test_a_rule_with_no_network_is_reported(prefix: object) -> None:
    with pytest.raises(ServiceError, match="expected: a network"):
        _covers(rule(prefix), 22, "192.0.2.7/32")
