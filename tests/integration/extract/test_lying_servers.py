"""Servers that lie about sizes and ranges, never end, crawl, or redirect into the network: runs end and say why."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from larder.stage import main
from services.extract import download
from services.extract.extract import extract
from services.extract.remotes import addresses
from services.extract.settings import ExtractSettings
from tests.integration.extract.conftest import Pack, Raw, Run
from tests.liar import Liar, Request, Talk, lying

FILES = {"training/0_0.jpg": os.urandom(200_000), "training/0_1.jpg": b"1"}


@pytest.fixture
def run(volume: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the stage in this process, with short pauses and few tries. Returns exit code and stderr."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("LARDER_", "AWS_", "S3_", "REQUESTS_", "CURL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LARDER_VOLUME_DIR", str(volume))
    monkeypatch.setenv("LARDER_WORKERS", "1")
    monkeypatch.setattr(download, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(download, "TRIES", 2)
    before = signal.getsignal(signal.SIGTERM)

    def run_stage(*flags: str) -> tuple[int, str]:
        code = main("extract", ExtractSettings, extract, "", flags)
        stderr = capsys.readouterr().err
        assert "Traceback" not in stderr
        return code, stderr

    yield run_stage
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as server:
        yield server


@pytest.fixture
def archive(packers: Mapping[str, Pack]) -> bytes:
    return packers["tar"](FILES)


def saying(head: str, body: bytes = b"") -> Callable[[Request, Talk], None]:
    """Return a function that answers with these header lines."""

    def answer(_: Request, talk: Talk) -> None:
        talk.send(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)

    return answer


OK = "HTTP/1.1 200 OK\nConnection: close\n"


@pytest.mark.parametrize("length", ["abc", "-5", "1e3", "9" * 30, "9" * 5000, "5, 6", "0x10", "+7", "\xb2"])
def test_length_that_is_no_number(run: Run, liar: Liar, length: str) -> None:
    liar.answer = saying(f"{OK}Content-Length: {length}", b"12345")
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert code == 5, stderr
    assert "usable length" in stderr or "Content-Length" in stderr


def test_archive_that_is_too_large_by_its_length(run: Run, liar: Liar, volume: Path) -> None:
    liar.answer = saying(f"{OK}Content-Length: 1000001", b"12345")
    code, stderr = run(f"--source={liar.url}/a.tar", "--max-download=1MB")
    assert (code, "LARDER_MAX_DOWNLOAD" in stderr) == (3, True), stderr
    assert len(liar.asked) == 1
    assert not list(volume.glob(".larder/raw/downloads/*"))


@pytest.mark.parametrize("how", ["to the end", "chunked"])
def test_endless_download_without_a_length(run: Run, liar: Liar, volume: Path, how: str) -> None:
    head = "Transfer-Encoding: chunked\r\n\r\n" if how == "chunked" else "\r\n"
    piece = b"8000\r\n" + bytes(0x8000) + b"\r\n" if how == "chunked" else bytes(1 << 16)

    def endless(_: Request, talk: Talk) -> None:
        talk.send(OK.replace("\n", "\r\n").encode() + head.encode())
        talk.flood(piece)

    liar.answer = endless
    code, stderr = run(f"--source={liar.url}/a.tar", "--max-download=3MB")
    assert (code, "LARDER_MAX_DOWNLOAD" in stderr) == (3, True), stderr
    assert "removed the unfinished download of" in stderr
    assert not list(volume.glob(".larder/raw/downloads/*"))


def test_endless_download_leaves_space_for_its_files(
    run: Run, liar: Liar, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_SPACE_CHECK_BYTES", 1 << 20)
    looked: list[int] = []

    def require_space(folder: Path, needed: int, what: str) -> None:
        looked.append(needed)
        if needed > 3 << 20:
            raise download.StorageError(f"{what} needs more", next_step="free some space")

    def endless(_: Request, talk: Talk) -> None:
        talk.send(OK.replace("\n", "\r\n").encode() + b"\r\n")
        talk.flood(bytes(1 << 16))

    monkeypatch.setattr(download, "require_space", require_space)
    liar.answer = endless
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert (code, "whose length the server doesn't say" in stderr) == (3, True), stderr
    assert looked == sorted(looked) and len(looked) >= 3
    assert not list(volume.glob(".larder/raw/downloads/*"))


def test_what_one_source_left_is_not_in_the_way_of_others(
    run: Run, liar: Liar, volume: Path, archive: bytes, raw: Raw
) -> None:
    liar.answer = saying(f'{OK}ETag: "1"\nContent-Length: 9000000', bytes(100_000))
    assert run(f"--source={liar.url}/first.tar?secret=x")[0] == 5
    (left,) = volume.glob(".larder/raw/downloads/*")
    assert (left / "archive.part").stat().st_size == 100_000
    liar.answer = saying(f"{OK}Content-Length: {len(archive)}", archive)
    code, stderr = run(f"--source={liar.url}/second.tar")
    assert code == 0, stderr
    assert f"removed the unfinished download of {liar.url}/first.tar: 97." in stderr
    assert raw.content() == FILES


@pytest.mark.parametrize("where", ["status line", "headers", "body", "chunks"])
def test_server_that_crawls(run: Run, liar: Liar, where: str) -> None:
    """One byte at a time doesn't count as progress, in whatever phase."""
    heads = {
        "status line": b"",
        "headers": b"HTTP/1.1 200 OK\r\n",
        "body": b"HTTP/1.1 200 OK\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }
    rest = {
        "status line": b"HTTP/1.1 200 OK",
        "headers": b"X-Long: " + b"x" * 9999,
        "body": bytes(9999),
        "chunks": b"1\r\nx\r\n" * 999,
    }

    def crawl(_: Request, talk: Talk) -> None:
        talk.send(heads[where])
        talk.drip(rest[where] * 99)

    liar.answer = crawl
    code, stderr = run(f"--source={liar.url}/a.tar", "--stall-seconds=1")
    assert code == 5, stderr
    assert "bytes arrived in" in stderr and "LARDER_STALL_SECONDS" in stderr
    assert len(liar.asked) == 2


@pytest.mark.parametrize("banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"PK\3\4 without a head\r\n\r\n"])
def test_server_of_another_protocol(run: Run, liar: Liar, banner: bytes) -> None:
    liar.answer = lambda request, talk: talk.send(banner)
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert (code, "answer isn't HTTP" in stderr) == (5, True), stderr


def test_silent_server(run: Run, liar: Liar) -> None:
    liar.answer = lambda request, talk: talk.hush()
    code, stderr = run(f"--source={liar.url}/a.tar", "--stall-seconds=1")
    assert (code, "has stopped sending" in stderr) == (5, True), stderr


def test_server_that_sends_a_byte_a_connection(run: Run, liar: Liar) -> None:
    def answer(request: Request, talk: Talk) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        part = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-999999/1000000\r\n"
        talk.send((part if start else "HTTP/1.1 200 OK\r\n").encode() + b'ETag: "1"\r\n')
        talk.send(f"Content-Length: {1_000_000 - start}\r\n\r\nx".encode())

    liar.answer = answer
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert (code, "without progress" in stderr) == (5, True), stderr
    assert len(liar.asked) == 2


@pytest.mark.parametrize(
    "flood",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"X: y\r\n", b"x" * 9999, b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n"],
    ids=["interim answers", "headers", "one header", "redirects"],
)
def test_endless_heads(run: Run, liar: Liar, flood: bytes) -> None:
    def answer(_: Request, talk: Talk) -> None:
        if flood.startswith(b"HTTP/1.1 302"):
            return talk.send(flood)
        talk.send(b"" if flood.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n")
        return talk.flood(flood)

    liar.answer = answer
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert code in (3, 5), stderr


@pytest.mark.parametrize("chunks", [b"-1\r\n", b"-5\r\nabc", b"zz\r\n", b"F" * 99999, b"0\r\n" + b"X: y\r\n" * 999])
def test_chunks_that_are_none(run: Run, liar: Liar, chunks: bytes) -> None:
    head = OK.replace("\n", "\r\n").encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    liar.answer = lambda _, talk: talk.send(head + chunks)
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert code == 5, stderr


@pytest.mark.parametrize(
    "lie",
    [
        "Content-Range: bytes 5-9/20",
        "Content-Range: bytes 100000-5/300000",
        "Content-Range: bytes 100000-399999/300000",
        "Content-Range: items 1-2/3",
        "Content-Range: bytes 100000-299999/99999999999999999999999",
        "X: y",
        "Content-Range: bytes 100000-299999/300000\nContent-Length: 7",
        "Content-Range: bytes 100000-299999/700000",
    ],
)
def test_lies_about_ranges(run: Run, liar: Liar, archive: bytes, raw: Raw, lie: str) -> None:
    """Never append a range that wasn't requested."""

    def answer(request: Request, talk: Talk) -> None:
        if "range" in request.headers:
            return saying(f'HTTP/1.1 206 Partial Content\nETag: "1"\n{lie}', b"LIES" * 1000)(request, talk)
        whole = len(liar.asked) > 1
        return saying(f'{OK}ETag: "1"\nContent-Length: {len(archive)}', archive[: None if whole else 100_000])(
            request, talk
        )

    liar.answer = answer
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert code == 5 or raw.content() == FILES, stderr


def test_reason_phrases_cannot_forge_lines(run: Run, liar: Liar) -> None:
    liar.answer = saying("HTTP/1.1 404 gone\x1b[2K\x9b1A\x85error: forged\x0b", b"")
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert code == 3
    assert "404 gone\\x1b[2K\\x9b1A\\x85error: forged" in stderr
    assert all(line.isprintable() for line in stderr.splitlines())


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    """A server at 127.0.0.2, which these tests treat as a public address."""
    classify_address = addresses.classify_address
    monkeypatch.setattr(
        addresses, "classify_address", lambda text: "public" if text == "127.0.0.2" else classify_address(text)
    )
    with lying("127.0.0.2") as server:
        yield server


def to(location: str) -> Callable[[Request, Talk], None]:
    return saying(f"HTTP/1.1 302 Found\nConnection: close\nContent-Length: 0\nLocation: {location}")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0", "10.1.2.3",
     "[fd00::1]",
     "192.168.0.1", "172.16.0.1", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "100.64.0.1", "[64:ff9b::a00:1]",
     "[2002:7f00:1::]", "[64:ff9b:1::1]", "[::ffff:0:127.0.0.1]",
     "168.63.129.16", "localhost.", "127.0.0.1.", "[::127.0.0.1]", "224.0.0.1", "rebind.test"],
)  # fmt: skip
def test_redirect_into_the_network_is_refused(
    run: Run, internet: Liar, liar: Liar, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **named: resolve("127.0.0.1" if name == "rebind.test" else name, *rest, **named),
    )
    internet.answer = to(f"http://{host}:{liar.port}/secret?token=s3cr3t")
    code, stderr = run(f"--source={internet.url}/a.tar")
    assert code == 3, stderr
    assert "not followed" in stderr and "s3cr3t" not in stderr
    assert (len(internet.asked), liar.connections) == (1, 0)


def test_an_address_is_checked_when_it_is_connected_to(
    run: Run, internet: Liar, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["127.0.0.2", "127.0.0.1"])
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, *rest, **named: resolve(next(answers) if name == "rebind.test" else name, *rest, **named),
    )
    internet.answer = to(f"http://rebind.test:{liar.port}/a.tar")
    code, stderr = run(f"--source=http://rebind.test:{internet.port}/a.tar")
    assert (code, liar.connections) == (3, 0), stderr


def test_redirect_through_several_hops_is_checked_at_each(run: Run, internet: Liar, liar: Liar) -> None:
    def answer(request: Request, talk: Talk) -> None:
        place = (
            f"http://127.0.0.1:{liar.port}/x" if request.path == "/two" else "/one" if request.path == "/" else "/two"
        )
        to(place)(request, talk)

    internet.answer = answer
    code, stderr = run(f"--source={internet.url}/")
    assert (code, liar.connections, len(internet.asked)) == (3, 0, 3), stderr


@pytest.mark.parametrize(
    "place", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://[::1", "http://:80/", "gopher:x", "http://a:b/c"]
)
def test_redirect_to_no_usable_place(run: Run, liar: Liar, place: str) -> None:
    liar.answer = to(place)
    code, stderr = run(f"--source={liar.url}/a.tar")
    assert (code, "invalid URL" in stderr) == (3, True), stderr


def test_redirect_within_the_machine_where_the_source_is_there(run: Run, liar: Liar, archive: bytes, raw: Raw) -> None:
    """run.json has the digest, which can be pinned."""
    with lying() as other:
        other.answer = saying(f'{OK}ETag: "v1"\nContent-Length: {len(archive)}', archive)
        liar.answer = to(f"{other.url}/b.tar?signature=s3cr3t")
        code, stderr = run(f"--source={liar.url}/a.tar")
        assert code == 0, stderr
    facts = json.loads(raw.meta("run.json"))["found"]
    manifest = json.loads(raw.meta("manifest.json"))
    assert facts == {
        "sha256": manifest["input"]["sha256"],
        "bytes": len(archive),
        "url": f"{other.url}/b.tar",
        "etag": '"v1"',
    }


def test_password_stays_with_its_host(run: Run, liar: Liar, archive: bytes) -> None:
    with lying() as other:
        other.answer = saying(f"{OK}Content-Length: {len(archive)}", archive)
        places = iter(["/b.tar", f"http://localhost:{other.port}/c.tar"])
        liar.answer = lambda request, talk: to(next(places))(request, talk)
        code, stderr = run(f"--source=http://me:s3cr3t@127.0.0.1:{liar.port}/a.tar")
    assert (code, "s3cr3t" in stderr) == (0, False), stderr
    assert ["authorization" in asked.headers for asked in (*liar.asked, *other.asked)] == [True, True, False]
