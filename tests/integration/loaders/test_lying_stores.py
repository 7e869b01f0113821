"""Stores that crawl, fall silent or send more than was asked for, as loaders read them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from larder.errors import InputError, LarderError, ServiceError
from larder.loaders import s3_reader
from larder.loaders.s3_reader import STREAM_ERRORS, ProcessReaders
from larder.loaders.traffic import TrafficCounter
from larder.store import BucketSettings
from tests.liar import Liar, Request, Talk, lying

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nx-amz-request-id: 1\r\n"


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    with lying() as server:
        yield server


@pytest.fixture(scope="module")
def reader(liar: Liar) -> s3_reader.ObjectReader:
    values = {
        "s3_endpoint_url": liar.url,
        "bucket": "bucket",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "stall_seconds": 1,
    }
    return ProcessReaders(BucketSettings.model_validate(values, by_name=True), TrafficCounter()).get()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_reader, "ATTEMPTS", 1)


@pytest.mark.parametrize("what", ["head", "object", "message"])
def test_object_that_crawls(liar: Liar, reader: s3_reader.ObjectReader, what: str) -> None:
    def crawl(_: Request, talk: Talk) -> None:
        head = HEAD.replace(b"200 OK", b"500 Oh") if what == "message" else HEAD
        talk.send(b"" if what == "head" else head + b"\r\n")
        talk.drip(HEAD + b"X: " + bytes([120]) * 9999 if what == "head" else HEAD * 999)

    liar.answer = crawl
    with pytest.raises(ServiceError, match="makes no progress: ") as caught:
        reader.read("a", 1 << 20)
    assert "LARDER_STALL_SECONDS" in caught.value.next_step


def test_silent_store(liar: Liar, reader: s3_reader.ObjectReader) -> None:
    liar.answer = lambda request, talk: talk.hush()
    with pytest.raises(ServiceError, match="has stopped sending"):
        reader.read("a", 1 << 20)


@pytest.mark.parametrize("lie", ["crawl", "flood"])
def test_stream(liar: Liar, reader: s3_reader.ObjectReader, lie: str) -> None:
    """A shard: its length is told, and its first block is asked for by range."""

    def answer(request: Request, talk: Talk) -> None:
        length = b"Content-Length: 1000000\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n"
        if request.line.startswith("HEAD"):
            talk.send(HEAD + length + b"\r\n")
            return
        talk.send(HEAD.replace(b"200 OK", b"206 Partial Content") + b"\r\n")
        talk.drip(bytes(9999)) if lie == "crawl" else talk.flood(bytes(1 << 20))

    liar.answer = answer
    with pytest.raises(STREAM_ERRORS) as caught, reader.open("shard.tar") as file:
        file.read(512)
    error = reader.explain(caught.value)
    assert ("makes no progress" if lie == "crawl" else "longer than its index says") in error.what


def test_stream_of_unknown_length(liar: Liar, reader: s3_reader.ObjectReader) -> None:
    liar.answer = lambda _, talk: talk.send(HEAD + b"\r\n")
    with pytest.raises(STREAM_ERRORS) as caught:
        reader.open("shard.tar")
    error = reader.explain(caught.value)
    assert isinstance(error, ServiceError)
    assert "the answer has no ContentLength" in error.what


def test_endless_object_and_message(liar: Liar, reader: s3_reader.ObjectReader) -> None:
    for status, kind, what in (("200 OK", InputError, "longer than"), ("500 Oh", LarderError, "more than 16 MiB")):

        def endless(_: Request, talk: Talk, status: str = status) -> None:
            talk.send(HEAD.replace(b"200 OK", status.encode()) + b"\r\n")
            talk.flood(b"x" * (1 << 20))

        liar.answer = endless
        tracemalloc.start()
        with pytest.raises(kind, match=what):
            reader.read("a", 1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 80 << 20


@pytest.mark.parametrize("status", ["301 Moved Permanently", "307 Temporary Redirect"])
def test_redirects_are_not_followed(liar: Liar, reader: s3_reader.ObjectReader, status: str) -> None:
    with lying() as inside:
        inside.answer = lambda request, talk: talk.send(HEAD + b"\r\nsecret")

        def redirect(_: Request, talk: Talk) -> None:
            talk.send(f"HTTP/1.1 {status}\r\nLocation: {inside.url}/secret\r\nContent-Length: 0\r\n\r\n".encode())

        liar.answer = redirect
        with pytest.raises(LarderError):
            reader.read("a", 1000)
        assert not inside.asked
