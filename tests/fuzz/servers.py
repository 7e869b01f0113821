"""Servers that answer at random. Clients must end with files or with errors of ours."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from unittest.mock import patch

from tests.fuzz.mutations import corrupt
from tests.liar import Liar, Request, Talk, lying

STALL_SECONDS = 1
NUMBERS = ("0", "1", "7", "100", "99999", "-1", "abc", "", "1e3", "+7", "0x10", "9" * 19, "9" * 30, "9" * 5000, "5, 6")
_NAMES = ("ETag", "Content-Length", "Content-Range", "Last-Modified", "X", "Transfer-Encoding", "Content-Encoding")
_VALUES = ("", "\xe9", "x" * 70_000, '"a"', 'W/"a"', "\x1b[2J", "chunked", "gzip", "bytes 0-", ", ,", "%00", "identity")

Say = Callable[[Talk], None]


def server() -> Liar:
    """Return the server for all inputs of this process, which ends with it. It is reached without a proxy."""
    return _served()[1]


@cache
def _served() -> tuple[AbstractContextManager[Liar], Liar]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    serving = lying()  # kept, since it ends with the last reference
    return serving, serving.__enter__()


def answering(chance: random.Random, make: Callable[[random.Random, Request], Say]) -> str:
    """Let the server answer each request by `make`. Returns its address."""
    liar = server()
    liar.asked.clear()
    seed = chance.getrandbits(64)

    def answer(request: Request, talk: Talk) -> None:
        make(random.Random(seed + len(liar.asked)), request)(talk)

    liar.answer = answer
    return liar.url


def http_answer(chance: random.Random, status: str, headers: dict[str, str], body: bytes) -> Say:
    """Return an answer, possibly damaged. Its body may have another length, be endless or end too soon."""
    given = dict(headers)
    kind = chance.randrange(12)
    if kind < 2:
        given["Content-Length"] = chance.choice(NUMBERS)
    elif kind < 5:
        given["Transfer-Encoding"] = "chunked"
        body = _chunked(chance, body)
    elif kind < 10:
        given["Content-Length"] = str(len(body) + chance.choice([0, 0, 0, 0, 1, -1, 5000]))
    while chance.random() < 0.2:
        given[chance.choice(_NAMES)] = chance.choice([*_VALUES, *NUMBERS])
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\n{lines}\r\n".encode("latin-1", "replace")
    head = corrupt(head, chance) if chance.random() < 0.15 else head
    whole = b"HTTP/1.1 100 Continue\r\n\r\n" * chance.choice([0, 0, 0, 0, 0, 1, 30]) + head + body

    def say(talk: Talk) -> None:
        talk.send(whole)
        if kind == 10 and len(body) % 7 == 0:
            talk.hush()
        elif kind == 11:
            talk.flood(bytes(1 << 20))

    return say


def _chunked(chance: random.Random, body: bytes) -> bytes:
    sizes = [b"%x" % len(body)] * 8 + [b"", b"-1", b"zz", b"7fffffffffffffff", b"%x" % (len(body) + 9)]
    last = chance.choice([b"0\r\n\r\n"] * 6 + [b"", b"0\r\nx: y\r\n" + b"t: t\r\n" * 200 + b"\r\n", b"0\r\n"])
    return (chance.choice(sizes) + b"\r\n" + body + b"\r\n" if body else b"") + last


@contextmanager
def without_pauses(*modules: object) -> Iterator[None]:
    """Run a block in which these modules don't wait between their tries."""
    clock = SimpleNamespace(sleep=lambda seconds: None, monotonic=time.monotonic, time=time.time)
    patches = [patch.object(module, "time", clock) for module in modules]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
