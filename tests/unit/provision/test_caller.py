"""The addresses that `caller` stands for: this machine's, or what a user of a JupyterHub answers."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError, LarderError, ServiceError
from provision import caller
from provision.caller import find_networks, own_network

WAYS = [(socket.AF_INET6, ("::1", 5000, 0, 0)), (socket.AF_INET, ("127.0.0.1", 5000))]
"""To a cloud with addresses of both kinds, in the order in which systems prefer them."""


def test_an_address_of_ipv4_is_preferred_since_floating_ips_are(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(family, socket.SOCK_DGRAM, 17, "", target) for family, target in WAYS]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: answers)
    config = SimpleNamespace(get_auth_args=lambda: {"auth_url": "http://cloud.invalid:5000/v3"})
    site = SimpleNamespace(connection=SimpleNamespace(config=config))
    assert own_network(cast(Any, SimpleNamespace(clouds=SimpleNamespace(compute=site)))) == "127.0.0.1/32"


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
        stack = SimpleNamespace(clouds=SimpleNamespace(compute=site), declaration=declared)
        with monkeypatch.context() as patch:
            ways = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("8.8.8.8", 5000))]
            patch.setattr(
                caller,
                "socket",
                SimpleNamespace(
                    getaddrinfo=lambda *words, **options: ways,
                    socket=_BehindARouter,
                    AF_INET=socket.AF_INET,
                    SOCK_DGRAM=socket.SOCK_DGRAM,
                ),
            )
            return own_network(cast(Any, stack))

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
    monkeypatch.setattr(caller, "SECONDS", 0.5)
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[SimpleNamespace, list[str]]]:
    """Return a stack on a user's server of a JupyterHub, whose address is 198.51.100.7, and what it reports."""
    monkeypatch.setenv("JUPYTERHUB_API_URL", "http://hub.invalid/hub/api")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setattr(caller, "own_network", lambda stack: "198.51.100.7/32")

    def hub(typed: str | None, *callers: str) -> tuple[SimpleNamespace, list[str]]:
        said: list[str] = []
        answers = io.StringIO(typed or "")
        monkeypatch.setattr(answers, "isatty", lambda: typed is not None, raising=False)
        monkeypatch.setattr(sys, "stdin", answers)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        declared = SimpleNamespace(caller_service="https://ip.example.org")
        report = lambda event, message: said.append(f"{event} {message}")  # noqa: E731
        return SimpleNamespace(callers=callers, known_callers=set(), declaration=declared, report=report), said

    return hub


@pytest.mark.parametrize(
    ("typed", "networks", "noted"),
    [
        ("\n", {"198.51.100.7/32"}, "LARDER_CALLER=here answers"),
        ("192.0.2.7\n", {"198.51.100.7/32", "192.0.2.7/32"}, "LARDER_CALLER=here,192.0.2.7/32 answers"),
    ],
    ids=["nobody", "computer"],
)
def test_at_a_hub_it_is_asked_once_who_else_may_connect(
    hub: Callable[..., Any], capsys: pytest.CaptureFixture[str], typed: str, networks: set[str], noted: str
) -> None:
    stack, said = hub(typed)
    assert find_networks(stack) == find_networks(stack) == networks
    assert len(said) == 1 and noted in said[0]
    asked = capsys.readouterr().err
    assert "198.51.100.7/32" in asked and "https://ip.example.org" in asked and asked.count("Who else") == 1


def test_at_a_hub_the_setting_answers(hub: Callable[..., Any]) -> None:
    stack, said = hub(None, "here", "192.0.2.7/32")
    assert find_networks(stack) == {"198.51.100.7/32", "192.0.2.7/32"} and not said
    assert find_networks(hub(None, "192.0.2.7/32")[0]) == {"192.0.2.7/32"}


@pytest.mark.parametrize("where", ["no terminal", "notebook", "nonsense"])
def test_at_a_hub_nothing_is_opened_without_an_answer(
    hub: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    stack, _ = hub({"no terminal": None, "notebook": "\n", "nonsense": "home\n"}[where])
    if where == "notebook":
        monkeypatch.setenv("JPY_PARENT_PID", "1")
    with pytest.raises(ConfigurationError) as caught:
        find_networks(stack)
    assert "LARDER_CALLER=here,192.0.2.7" in caught.value.next_step and not stack.known_callers
