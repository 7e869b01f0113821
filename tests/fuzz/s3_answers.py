"""A store's answers, as stages read them by boto3, extract in listings, and loaders by s3fs."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from unittest.mock import patch

from larder import s3_requests
from larder.bucket import BucketPrefix
from larder.loaders import s3_reader
from larder.loaders.traffic import TrafficCounter
from larder.progress import NullReporter
from larder.s3_objects import make_object_client
from larder.sources import prefix_reader
from larder.store import BucketSettings
from services.extract import download
from services.extract.remotes.prefix import PrefixDownloader
from services.extract.remotes.s3 import S3Remote
from services.extract.settings import ExtractSettings
from tests.fuzz.mutations import corrupt
from tests.fuzz.servers import NUMBERS, STALL_SECONDS, Say, answering, http_answer, server, without_pauses
from tests.liar import Request

_MAX_BYTES = 1 << 20
_STATUSES = (
    "200 OK",
    "200 OK",
    "200 OK",
    "200 OK",
    "206 Partial Content",
    "404 Gone",
    "403 No",
    "503 Busy",
    "500 Oh",
    "307 Away",
    "400 Bad",
    "416 Range",
    "304 Same",
    "204 None",
)
_ENTRY = "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag><LastModified>2026</LastModified></Contents>"
_UPLOAD = "<Upload><Key>{}</Key><UploadId>{}</UploadId></Upload>"
_KEYS = (
    "data/a",
    "data/b.jpg",
    "data/",
    "data",
    "other",
    "",
    "data/../x",
    "data/\u202e",
    "data/&#27;[2J",
    "data/&lt;",
    "data//",
    "x" * 5000,
)
_ODD = (
    b"",
    b"<",
    b"<html>",
    b"<a>" * 5000,
    b"\0",
    b"[1]",
    b"<?xml version='1.0'?>",
    b"&#27;",
    b"<!DOCTYPE a [<!ENTITY b 'bbbbbbbbbb'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'>]><a>&c;&c;</a>",
)


@cache
def _settings() -> BucketSettings:
    values = {
        "s3_endpoint_url": server().url,
        "bucket": "bucket",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "stall_seconds": STALL_SECONDS,
        "aws_region": "here",
    }
    return BucketSettings.model_validate(values, by_name=True)


@cache
def _extract_settings() -> ExtractSettings:
    given = {
        name: getattr(_settings(), name)
        for name in ("s3_endpoint_url", "aws_access_key_id", "aws_secret_access_key", "stall_seconds", "aws_region")
    }
    return ExtractSettings.model_validate(given | {"source": "s3://bucket/data/"}, by_name=True)


@cache
def _folder() -> BucketPrefix:
    return BucketPrefix(_settings(), "data")


@cache
def _fast_folder() -> BucketPrefix:
    return BucketPrefix(_settings(), "data", make_object_client(_settings()))


@cache
def _prefix() -> PrefixDownloader:
    return PrefixDownloader("s3://bucket/data/", _extract_settings(), 1000)


@cache
def _reader() -> s3_reader.ObjectReader:
    return s3_reader.ProcessReaders(_settings(), TrafficCounter()).get()


def fuzz(chance: random.Random, folder: Path) -> None:
    """Send a request to a store that answers at random."""
    answering(chance, _answer)
    ask = chance.choice([_stage, _stage, _stream, _extract, _load])
    with (
        without_pauses(s3_requests, download, prefix_reader, s3_reader),
        patch.object(s3_requests, "_PAUSES_SECONDS", (0.0,)),
        patch.object(download, "TRIES", 2),
        patch.object(s3_reader, "ATTEMPTS", 2),
    ):
        ask(chance, folder)


def _stream(chance: random.Random, _: Path) -> None:
    store = _fast_folder()
    match chance.randrange(3):
        case 0:
            content = store.read("a", 1000)
            assert content is None or len(content) <= 1000
        case 1:
            found = store.read_into("a", 5000, memoryview(bytearray(100)), chance.choice(["", "1"]))
            assert found is None or found[0] <= 100
        case _:
            store.find_manifest()


def _stage(chance: random.Random, folder: Path) -> None:
    store = _folder()
    match chance.randrange(10):
        case 0 | 1:
            for item in store.list():
                assert item.bytes >= 0
        case 2:
            content = store.read("a", 1000)
            assert content is None or len(content) <= 1000
        case 3:
            content = store.read_range("a", 5000, 100)
            assert content is None or len(content) <= 100
            found = store.read_into("a", 5000, memoryview(bytearray(100)))
            assert found is None or 0 <= found[0] <= 100
        case 4:
            store.download("a", folder / "a", 1000)
        case 5:
            store.find_manifest()
        case 6:
            store.write("a", b"x")
        case 7:
            store.write_parts("a", [b"x", b"y"])
        case 8:
            store.abort_uploads(lambda path: True)
        case _:
            store.delete(["a", "b"])
            store.copy("a", "b", 1)


def _extract(chance: random.Random, folder: Path) -> None:
    match chance.randrange(3):
        case 0:
            for item in _prefix().list():
                assert item.bytes >= 0 and not item.path.startswith("/")
        case 1:
            found = prefix_reader.S3Object("a", 100, '1" or', "data/a")
            assert sum(map(len, _prefix().read(found))) == 100
        case _:
            remote = S3Remote("s3://bucket/data/a", _extract_settings())
            path = download.download(remote, folder, NullReporter(), _MAX_BYTES)
            assert path.stat().st_size <= _MAX_BYTES


def _load(chance: random.Random, folder: Path) -> None:
    if chance.random() < 0.5:
        assert len(_reader().read("data/a", 1000)) <= 1000
        return
    try:
        with _reader().open("data/a") as file:
            file.read(512)
    except (*s3_reader.STREAM_ERRORS, ValueError) as fault:  # as ShardStream
        raise _reader().explain(fault) from fault


def _answer(chance: random.Random, request: Request) -> Say:
    status = chance.choice(_STATUSES)
    headers = {"x-amz-request-id": "1", "Last-Modified": chance.choice(["Wed, 21 Oct 2015 07:28:00 GMT", "2015", ""])}
    if chance.random() < 0.8:
        headers["ETag"] = '"0"'
    body = _message(chance, request) if status < "206" or status >= "3" else chance.randbytes(100)
    if chance.random() < 0.3:
        body = corrupt(body, chance) if body else chance.choice(_ODD)
    if status.startswith("206"):
        headers["Content-Range"] = f"bytes {chance.choice(['5000', *NUMBERS])}-{chance.choice(['5099', *NUMBERS])}/*"
    if status.startswith("307"):
        headers["Location"] = chance.choice([f"{server().url}/x", "http://169.254.169.254/", "http://[", ""])
    return http_answer(chance, status, headers, body)


def _message(chance: random.Random, request: Request) -> bytes:
    """A list, a message, or an object."""
    more = chance.choice(
        ["<IsTruncated>false</IsTruncated>"] * 3 + ["<IsTruncated>true</IsTruncated>", "<IsTruncated>7</IsTruncated>"]
    )
    for mark in ("NextContinuationToken", "NextKeyMarker", "NextUploadIdMarker"):
        if chance.random() < 0.4:
            more += f"<{mark}>{chance.choice(['same', '', str(chance.random())])}</{mark}>"
    count = chance.choice([0, 1, 3, 30])
    entries = "".join(_ENTRY.format(chance.choice(_KEYS), chance.choice(["7", *NUMBERS]), '"1"') for _ in range(count))
    uploads = "".join(_UPLOAD.format(chance.choice(_KEYS), "1") for _ in range(chance.randrange(3)))
    code = chance.choice(["NoSuchKey", "SlowDown", "AccessDenied", "Odd\x85Code", "NoSuchBucket", "404", ""])
    return chance.choice(
        [
            f"<ListBucketResult>{more}{entries}</ListBucketResult>",
            f"<ListBucketResult>{more}{entries}</ListBucketResult>",
            f"<ListMultipartUploadsResult>{more}{uploads}<Upload/></ListMultipartUploadsResult>",
            f"<Error><Code>{code}</Code><Message>a&#10;error: forged&#x202e;</Message></Error>",
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
            "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>",
            "<CopyObjectResult><ETag>1</ETag></CopyObjectResult>",
            "<CopyObjectResult/>",
            "<DeleteResult><Error><Code>Odd</Code><Key>a</Key></Error></DeleteResult>",
            "<DeleteResult><Error/></DeleteResult>",
            "x" * chance.choice([0, 100, 5000, 70_000]),
        ]
    ).encode()
