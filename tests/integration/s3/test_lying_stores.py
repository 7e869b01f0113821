"""Stores that lie: endless lists and messages, invalid sizes, single bytes; and the settings that reach a store."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from botocore.exceptions import ClientError
from urllib3.response import HTTPResponse

from larder import rclone, s3_requests
from larder.bucket import BucketPrefix
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.s3_bodies import read_piece_into
from larder.s3_objects import make_object_client
from larder.s3_session import MAX_RESPONSE_BYTES
from larder.sources.prefix_reader import PrefixReader, find_object, is_prefix
from larder.store import BucketSettings, make_client
from services.verify.locations import StoreLocation
from tests.liar import Liar, Request, Talk, lying

ENTRY = "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;1&quot;</ETag></Contents>"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("LARDER_", "AWS_", "S3_", "REQUESTS_", "CURL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(s3_requests, "_PAUSES_SECONDS", (0.001,))


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as server:
        yield server


CLIENTS = {"boto3": make_client, "fast": make_object_client}


@pytest.fixture(scope="module", params=CLIENTS)
def store(request: pytest.FixtureRequest) -> Iterator[tuple[Liar, BucketPrefix]]:
    """One server and client for many tests, since creating a client takes long."""
    with lying() as server:
        yield server, open_prefix(settings(server), request.param)


def open_prefix(chosen: BucketSettings, client: str) -> BucketPrefix:
    return BucketPrefix(chosen, "data", CLIENTS[client](chosen))


@pytest.fixture
def folder(store: tuple[Liar, BucketPrefix]) -> BucketPrefix:
    return store[1]


@pytest.fixture
def lying_server(store: tuple[Liar, BucketPrefix]) -> Liar:
    """The server of `folder`."""
    store[0].asked.clear()
    return store[0]


def settings(liar: Liar, **given: object) -> BucketSettings:
    values = {
        "s3_endpoint_url": liar.url,
        "bucket": "bucket",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "stall_seconds": 1,
    } | given
    return BucketSettings.model_validate(values, by_name=True)


def answer(body: str | bytes, status: str = "200 OK", **headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    lines = {"Connection": "close", "Content-Length": str(len(content)), "x-amz-request-id": "1"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def page(entries: str = "", more: str = "<IsTruncated>false</IsTruncated>") -> bytes:
    return answer(f"<?xml version='1.0'?><ListBucketResult>{more}{entries}</ListBucketResult>")


def always(*answers: bytes) -> Callable[[Request, Talk], None]:
    """Return a function that gives these answers in turn, the last one repeatedly."""
    left = list(answers)
    return lambda _, talk: talk.send(left.pop(0) if len(left) > 1 else left[0])


def more(token: str) -> str:
    return f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"


@pytest.mark.parametrize(
    "pages",
    [
        [page(more="<IsTruncated>true</IsTruncated>")],
        [page(more=more(""))],
        [page(ENTRY.format(key="data/a", size=1), more("same"))],
        [
            page(ENTRY.format(key="data/a", size=1), more("one")),
            page(ENTRY.format(key="data/b", size=1), more("two")),
            page(ENTRY.format(key="data/c", size=1), more("one")),
        ],
        [page(ENTRY.format(key="data/a", size=1), more(str(number))) for number in range(50)],
    ],
    ids=["no token", "empty token", "the same token", "tokens in a circle", "the same page"],
)
def test_list_without_an_end(folder: BucketPrefix, lying_server: Liar, pages: list[bytes]) -> None:
    lying_server.answer = always(*pages)
    with pytest.raises(ServiceError, match="listing is endless"):
        list(folder.list())
    assert len(lying_server.asked) <= 4


@pytest.mark.parametrize("entries", [0, 3])
def test_list_of_nearly_empty_pages_without_an_end(
    folder: BucketPrefix, lying_server: Liar, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    monkeypatch.setattr(s3_requests, "_SPARSE_PAGES", 20)

    def endless(_: Request, talk: Talk) -> None:
        number = len(lying_server.asked)
        items = [ENTRY.format(key=f"data/{number}-{item}", size=1) for item in range(entries)]
        talk.send(page("".join(items), more(f"token-{number}")))

    lying_server.answer = endless
    with pytest.raises(ServiceError, match="listing is endless"):
        list(folder.list())
    assert len(lying_server.asked) == 21


def test_list_of_unfinished_uploads_without_an_end(folder: BucketPrefix, lying_server: Liar) -> None:
    item = "<Upload><Key>data/x</Key><UploadId>1</UploadId></Upload>"
    markers = (
        "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>"
    )
    lying_server.answer = always(answer(f"<ListMultipartUploadsResult>{markers}{item}</ListMultipartUploadsResult>"))
    with pytest.raises(ServiceError, match="listing is endless"):
        folder.abort_uploads(lambda path: False)


@pytest.mark.parametrize("size", ["-1", "abc", "", "1e3", "9" * 30, "9" * 5000, "0x1f", "1.5", str(1 << 63)])
def test_sizes_that_are_none(folder: BucketPrefix, lying_server: Liar, size: str) -> None:
    lying_server.answer = always(page(ENTRY.format(key="data/a", size=size)))
    with pytest.raises((ServiceError, ConfigurationError)) as caught:
        list(folder.list())
    assert "lists an impossible object" in caught.value.what or "not as an S3 store does" in caught.value.what
    assert len(lying_server.asked) <= 2


@pytest.mark.parametrize(
    "entry", ["<Contents/>", "<Contents><Key>data/a</Key></Contents>", ENTRY.format(key="b", size=1)]
)
def test_entries_that_are_none(folder: BucketPrefix, lying_server: Liar, entry: str) -> None:
    lying_server.answer = always(page(entry))
    with pytest.raises(ServiceError, match="lists an impossible object"):
        list(folder.list())


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "500 Oh"])
@pytest.mark.parametrize("ask", ["list", "read"])
def test_endless_message_is_not_kept_in_memory(folder: BucketPrefix, lying_server: Liar, status: str, ask: str) -> None:
    def endless(_: Request, talk: Talk) -> None:
        talk.send(f"HTTP/1.1 {status}\r\nConnection: close\r\nx-amz-request-id: 1\r\n\r\n<a>".encode())
        talk.flood(b"x" * (1 << 20))

    lying_server.answer = endless
    tracemalloc.start()
    with pytest.raises(LarderError) as caught:
        list(folder.list()) if ask == "list" else folder.read("a", 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_RESPONSE_BYTES
    assert "more than" in caught.value.what


def test_endless_manifest(folder: BucketPrefix, lying_server: Liar) -> None:
    def endless(_: Request, talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        talk.flood(b'{"version": 1, ' * 65536)

    lying_server.answer = endless
    with pytest.raises(InputError, match="has more than"):
        folder.find_manifest()
    assert len(lying_server.asked) == 1


def test_endless_object_is_cut_off(folder: BucketPrefix, lying_server: Liar, tmp_path: Path) -> None:
    def endless(_: Request, talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        talk.flood(bytes(1 << 20))

    lying_server.answer = endless
    assert folder.download("a", tmp_path / "a", 5 << 20) is not None
    assert (tmp_path / "a").stat().st_size == (5 << 20) + 1
    assert folder.digest("a", 1000) is not None
    with pytest.raises(ServiceError):
        folder.verify_object("a", 1000, "0" * 64)


def test_endless_objects_end_for_verify(liar: Liar, tmp_path: Path) -> None:
    def endless(_: Request, talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        talk.flood(bytes(1 << 20))

    liar.answer = endless
    place = StoreLocation(settings(liar), "data")
    assert place.digest("a", 1000)[0] == 1001  # type: ignore[index]
    assert place.fetch("_larder/index.jsonl", tmp_path, 1000) is not None
    assert max(path.stat().st_size for path in tmp_path.iterdir()) == 1001


@pytest.mark.parametrize("what", ["head", "list", "object", "message"])
def test_store_that_crawls(folder: BucketPrefix, lying_server: Liar, what: str) -> None:
    def crawl(_: Request, talk: Talk) -> None:
        status = "500 Oh" if what == "message" else "200 OK"
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nx-amz-request-id: 1\r\n".encode()
        talk.send(b"" if what == "head" else head + b"\r\n")
        talk.drip(head * 999)

    lying_server.answer = crawl
    with pytest.raises(ServiceError, match=r"makes no progress: only .* bytes arrived") as caught:
        folder.read("a") if what == "object" else list(folder.list())
    assert "LARDER_STALL_SECONDS" in caught.value.next_step


def test_silent_store(folder: BucketPrefix, lying_server: Liar) -> None:
    lying_server.answer = lambda request, talk: talk.hush()
    with pytest.raises(ServiceError, match="has stopped sending"):
        folder.read("a")


@pytest.mark.parametrize("given", ["", "bytes 0-9/100", "items 5-9/100", "bytes 50-59/100"])
def test_another_range_than_was_asked_for(folder: BucketPrefix, lying_server: Liar, given: str) -> None:
    named = {"Content_Range": given} if given else {}
    lying_server.answer = always(answer(b"0123456789", "206 Partial Content" if given else "200 OK", **named))
    with pytest.raises(ServiceError, match="asked for bytes from 5"):
        folder.read_range("a", 5, 10)


def test_range_that_is_longer_than_was_asked_for(folder: BucketPrefix, lying_server: Liar) -> None:
    lying_server.answer = always(answer(b"0123456789" * 100, "206 Partial Content", Content_Range="bytes 5-1004/2000"))
    assert folder.read_range("a", 5, 10) == b"0123456789"
    memory = bytearray(10)
    assert folder.read_into("a", 5, memoryview(memory)) == (10, "")
    assert memory == b"0123456789"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_range_goes_into_memory_and_on_where_it_broke(
    folder: BucketPrefix, lying_server: Liar, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, begins = random.Random(1).randbytes(3 << 20), []

    def break_once(request: Request, talk: Talk) -> None:
        begin, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        begins.append(begin)
        part, named = content[begin : last + 1], {"Content_Range": f"bytes {begin}-{last}/{len(content)}"}
        if framing == "chunked":
            head = answer(b"", "206 Partial Content", **named)
            head = head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
            whole = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(part), part)
        else:
            head, whole = answer(b"", **named), answer(part, "206 Partial Content", **named)
        talk.send(whole if len(begins) > 1 else whole[: len(head) + (1 << 20) + 1000])

    def copy(*_: object) -> bytes:
        raise AssertionError("the bytes would be copied")

    lying_server.answer = break_once
    monkeypatch.setattr(HTTPResponse, "read", copy)
    memory = bytearray(len(content) - 7)
    assert folder.read_into("a", 7, memoryview(memory)) == (len(memory), "")
    assert memory == content[7:]
    assert begins[0] == 7
    assert 7 + (1 << 20) <= begins[1] <= 7 + (1 << 20) + 1000
    assert len(begins) == 2


@pytest.mark.parametrize(
    ("status", "is_fast"), [("429 Slow", True), ("408 Late", True), ("503 Busy", True), ("400 Bad", False)]
)
def test_boto3_is_asked_where_it_may_mend_a_fault(liar: Liar, status: str, is_fast: bool) -> None:
    client = make_object_client(settings(liar))
    liar.answer = always(answer("<Error><Code>Oh</Code></Error>", status))
    with pytest.raises(ClientError):
        client.get_object(Bucket="bucket", Key="a")
    assert (len(liar.asked) == 1) == is_fast


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Moved"])
def test_redirects_in_a_circle(folder: BucketPrefix, lying_server: Liar, status: str) -> None:
    """botocore asks for the bucket's region, and follows a redirect of that request in the same way."""
    lying_server.answer = always(answer("<Error><Code>PermanentRedirect</Code></Error>", status))
    with pytest.raises(LarderError):
        folder.read_range("a", 0, 10)
    assert len(lying_server.asked) < 30


def test_a_range_beyond_the_end_is_short(folder: BucketPrefix, lying_server: Liar) -> None:
    lying_server.answer = always(answer(b"0123", "206 Partial Content", Content_Range="bytes 5-8/9"))
    memory = bytearray(10)
    assert folder.read_into("a", 5, memoryview(memory)) == (4, "")
    assert memory == b"0123" + bytes(6)


def test_other_bodies_than_of_http_client_are_read() -> None:
    memory = bytearray(5)
    assert read_piece_into(io.BytesIO(b"012"), memoryview(memory)) == 3
    assert memory == b"012\0\0"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<",
        "<html>",
        "<a>" * 5000,
        "\x00",
        "<ListBucketResult><Contents>x</Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>maybe</IsTruncated><MaxKeys>many</MaxKeys></ListBucketResult>",
    ],
)
def test_answers_that_are_none(folder: BucketPrefix, lying_server: Liar, body: bytes) -> None:
    lying_server.answer = always(answer(body))
    try:
        assert list(folder.list()) == []
    except LarderError as error:
        assert error.exit_code in (2, 5)


def test_messages_of_stores_cannot_forge_lines(folder: BucketPrefix, lying_server: Liar) -> None:
    text = "<Error><Code>Odd\x85Code</Code><Message>a&#10;error: forged&#x202e;</Message></Error>"
    lying_server.answer = always(answer(text, "400 Bad Request"))
    with pytest.raises(ServiceError) as caught:
        folder.read("a")
    assert all(line.isprintable() for line in caught.value.format().split("\n"))
    assert caught.value.format().count("\n") == 1


@pytest.mark.parametrize("client", CLIENTS)
def test_without_keys_where_that_may_be(liar: Liar, client: str) -> None:
    liar.answer = always(answer(b"public"))
    unsigned = make_client(settings(liar, aws_access_key_id="", aws_secret_access_key=""), may_be_unsigned=True)
    assert unsigned.get_object(Bucket="bucket", Key="a")["Body"].read() == b"public"
    forced = open_prefix(settings(liar, unsigned=True), client)
    assert forced.read("a") == b"public"
    assert ["authorization" in asked.headers for asked in liar.asked] == [False, False]
    with pytest.raises(ConfigurationError, match="no credentials"):
        open_prefix(settings(liar, aws_access_key_id="", aws_secret_access_key=""), client).read("a")


def test_a_public_prefix_needs_no_keys(liar: Liar) -> None:
    listing = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>photos/a.jpg</Key><Size>3</Size>"
        "<ETag>x</ETag></Contents></ListBucketResult>"
    )
    liar.answer = always(answer(listing, Content_Type="application/xml"))
    public = settings(liar, aws_access_key_id="", aws_secret_access_key="")
    assert is_prefix("s3://bucket/photos/", public)
    assert [item.path for item in PrefixReader("s3://bucket/photos/", public, 9).list()] == ["a.jpg"]
    liar.answer = always(answer(b"abc"))
    assert find_object("s3://bucket/photos/a.jpg", public).bytes == 3
    assert not any("authorization" in asked.headers for asked in liar.asked)


@pytest.mark.parametrize("ask", ["list", "find", *CLIENTS])
def test_a_prefix_that_is_not_public_needs_keys(liar: Liar, ask: str) -> None:
    liar.answer = always(answer("<Error><Code>AccessDenied</Code></Error>", "403 Forbidden", x_amz_request_id="1"))
    private = settings(liar, aws_access_key_id="", aws_secret_access_key="", unsigned=ask in CLIENTS)
    with pytest.raises(ConfigurationError) as caught:
        if ask == "list":
            next(PrefixReader("s3://bucket/photos/", private, 9).list())
        elif ask == "find":
            find_object("s3://bucket/photos/a.jpg", private)
        else:
            open_prefix(private, ask).read("a.jpg")
    assert "access is denied without keys (" in caught.value.what
    assert "set AWS_ACCESS_KEY_ID" in str(caught.value.next_step)


@pytest.mark.parametrize("client", CLIENTS)
def test_region_and_payment_reach_the_store(liar: Liar, client: str) -> None:
    liar.answer = always(answer(b"x"))
    open_prefix(settings(liar, requester_pays=True, aws_region="eu-north-7"), client).read("a")
    (asked,) = liar.asked
    assert asked.headers["x-amz-request-payer"] == "requester"
    assert "x-amz-request-payer" in asked.headers["authorization"]
    assert "/eu-north-7/s3/" in asked.headers["authorization"]


def test_a_region_that_the_store_names(liar: Liar) -> None:
    """After a status that boto3 may handle, the fast client leaves this and later requests to boto3."""

    def reply(request: Request, talk: Talk) -> None:
        if "/eu-north-7/" in request.headers["authorization"]:
            return talk.send(answer(b"x"))
        code = "<Code>AuthorizationHeaderMalformed</Code><Region>eu-north-7</Region>"
        return talk.send(answer(f"<Error>{code}</Error>", "400 Bad Request"))

    liar.answer = reply
    found = {}
    for client in CLIENTS:
        try:
            found[client] = open_prefix(settings(liar), client).read("a")
        except ConfigurationError as error:
            found[client] = error.what
    assert found["fast"] == found["boto3"]


def test_only_requests_for_objects_are_fast(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream opens without boto3's client, which takes 0.15 s; what the fast one doesn't do still works."""
    made = []
    monkeypatch.setattr("larder.s3_objects.make_client", lambda settings: made.append(1) or make_client(settings))
    folder = open_prefix(settings(liar), "fast")
    liar.answer = always(answer(b"xyz", "206 Partial Content", Content_Range="bytes 0-2/3", ETag='"1"'))
    assert folder.read_range("a", 0, 3) == b"xyz"
    assert folder.read_into("a", 0, memoryview(bytearray(3))) == (3, "1")
    assert not made
    liar.answer = always(page(ENTRY.format(key="data/a", size=1)))
    assert [item.path for item in folder.list()] == ["a"]
    assert len(made) == 1


def test_a_body_that_ends_early_is_requested_again(folder: BucketPrefix, lying_server: Liar) -> None:
    lying_server.answer = always(answer(bytes(100))[:-50], answer(bytes(100)))
    assert folder.read("a") == bytes(100)
    assert len(lying_server.asked) == 2


@pytest.mark.parametrize("tags", [['W/"1"', 'W/"1"'], ["", ""], ["1", "1"], ['"1"', '"1"']])
def test_a_broken_transfer_goes_on_with_the_same_version(
    folder: BucketPrefix, lying_server: Liar, tags: list[str]
) -> None:
    def reply(request: Request, talk: Talk) -> None:
        first, last = request.headers["range"].removeprefix("bytes=").split("-")
        whole = answer(
            bytes(100)[int(first) : int(last) + 1],
            "206 Partial Content",
            Content_Range=f"bytes {first}-{last}/100",
            ETag=tags[int(first) > 0],
        )
        talk.send(whole if int(first) else whole[:-50])

    lying_server.answer = reply
    assert folder.read_into("a", 0, memoryview(bytearray(100))) == (100, "1" if tags[0] == '"1"' else "")
    conditions = [asked.headers.get("if-match") for asked in lying_server.asked]
    assert conditions == [None, '"1"' if tags[0] == '"1"' else None]


def by_rclone(chosen: BucketSettings, **environment: str) -> subprocess.CompletedProcess[str]:
    """Read an object by rclone, as stages do."""
    words = rclone.rclone_command("cat", f"{rclone.REMOTE}:bucket/a", "--retries=1", "--low-level-retries=1")
    return subprocess.run(
        words, env=rclone.rclone_environment(chosen) | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("unsigned", [False, True])
def test_settings_reach_rclone(liar: Liar, unsigned: bool) -> None:
    liar.answer = always(answer(b"x", Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT"))
    by_rclone(settings(liar, requester_pays=True, aws_region="eu-north-7", unsigned=unsigned))
    asked = liar.asked[0]
    assert asked.headers["x-amz-request-payer"] == "requester"
    assert ("authorization" in asked.headers) == (not unsigned)
    assert unsigned or "/eu-north-7/s3/" in asked.headers["authorization"]


@pytest.mark.parametrize("reader", [*CLIENTS, "rclone"])
def test_proxy_reaches_every_client(liar: Liar, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    """Only the proxy can resolve one store's name; the other store is in NO_PROXY."""
    liar.answer = always(answer(b"x", Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT"))
    monkeypatch.setenv("HTTP_PROXY", liar.url)
    monkeypatch.setenv("http_proxy", liar.url)
    far = settings(liar, s3_endpoint_url="http://store.test:9000")
    if reader in CLIENTS:
        assert open_prefix(far, reader).read("a") == b"x"
    else:
        by_rclone(far)
    assert "http://store.test:9000/bucket/" in liar.asked[0].line
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with lying() as store:
        store.answer = liar.answer
        near = settings(store)
        open_prefix(near, reader).read("a") if reader in CLIENTS else by_rclone(near)
        assert store.asked[0].path.startswith("/bucket/")


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("reader", [*CLIENTS, "rclone"])
def test_authorities_reach_every_client(
    liar: Liar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str, name: str
) -> None:
    """Without them, the error says at once what to set."""
    import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    liar.wrap(context)
    liar.answer = always(answer(b"x", Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT"))
    secure = settings(liar, s3_endpoint_url=liar.url.replace("http:", "https:"))
    if reader in CLIENTS:
        with pytest.raises(ConfigurationError, match="can't be verified: unable to get local issuer certificate"):
            open_prefix(secure, reader).read("a")
        with pytest.raises(ConfigurationError, match="says http://"):
            open_prefix(settings(liar), reader).read("a")
    else:
        failure = rclone.CopyFailure("", by_rclone(secure).stderr)
        error = rclone.explain_failure(failure, "reading", secure.s3_endpoint_url)
        assert (error.exit_code, "AWS_CA_BUNDLE" in error.next_step) == (2, True), error.what
    monkeypatch.setenv(name, str(tmp_path / "authority.pem"))
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    if reader in CLIENTS:
        assert open_prefix(secure, reader).read("a") == b"x"
        monkeypatch.setenv(name, str(tmp_path / "nothing.pem"))
        with pytest.raises(ConfigurationError, match="certificates can't be read"):
            open_prefix(secure, reader).read("a")
    else:
        assert not liar.asked
        by_rclone(secure)
        assert liar.asked[0].path.startswith("/bucket/")
