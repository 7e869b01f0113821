"""Downloads over HTTP: they resume, retry, restart, give up, and never mix two versions."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from larder import machine
from larder.stage import main
from services.extract import download
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from tests.integration.extract.conftest import Faults, Pack, Raw, Run

NOISE = random.Random(3).randbytes(400_000)
FILES = {"training/0_0.jpg": NOISE, "training/0_1.jpg": NOISE[:1000]}


@pytest.fixture
def run(volume: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the stage in this process, with short pauses. Returns exit code and stderr."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("LARDER_", "AWS_", "S3_", "REQUESTS_", "CURL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LARDER_VOLUME_DIR", str(volume))
    monkeypatch.setenv("LARDER_WORKERS", "1")
    monkeypatch.setattr(download, "_FIRST_PAUSE_SECONDS", 0.001)
    before = signal.getsignal(signal.SIGTERM)

    def run_stage(*flags: str) -> tuple[int, str]:
        code = main("extract", ExtractSettings, extract, "", flags)
        return code, capsys.readouterr().err

    yield run_stage
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def served(server: Faults, packers: Mapping[str, Pack]) -> Faults:
    """The server with an archive of `FILES`."""
    server.content = packers["tar"](FILES)
    return server


def ranges(server: Faults) -> list[str | None]:
    return [asked.range for asked in server.asked]


def test_broken_connections_are_resumed_where_they_broke(run: Run, served: Faults, raw: Raw) -> None:
    served.break_after = [100_000, 50_000]
    code, stderr = run(f"--source={served.url()}")
    assert code == 0, stderr
    assert raw.content() == FILES
    assert ranges(served) == [None, "bytes=100000-", "bytes=150000-"]
    assert [asked.if_range for asked in served.asked[1:]] == ['"one"'] * 2
    assert sum(asked.sent for asked in served.asked) == len(served.content)


def test_server_that_ignores_ranges(run: Run, served: Faults, raw: Raw) -> None:
    served.break_after, served.ignore_ranges = [100_000], True
    code, stderr = run(f"--source={served.url()}")
    assert (code, ranges(served)) == (0, [None, "bytes=100000-"])
    assert "from the start" in stderr
    assert raw.content() == FILES


def test_server_without_a_version_is_asked_from_the_start(run: Run, served: Faults, raw: Raw) -> None:
    served.break_after, served.etag = [100_000], None
    assert run(f"--source={served.url()}")[0] == 0
    assert ranges(served) == [None, None]
    assert raw.content() == FILES


@pytest.mark.parametrize("ignores", [False, True], ids=["If-Range heeded", "If-Range ignored"])
def test_file_that_changes_between_tries_is_not_mixed(
    run: Run, served: Faults, raw: Raw, packers: Mapping[str, Pack], ignores: bool
) -> None:
    new = {"training/0_0.jpg": NOISE[::-1], "training/0_1.jpg": b"new"}

    def change() -> None:
        served.content, served.etag = packers["tar"](new), '"two"'

    served.break_after, served.after_answer, served.ignore_if_range = [100_000], change, ignores
    assert run(f"--source={served.url()}")[0] == 0
    assert raw.content() == new


def test_file_that_shrank_is_fetched_from_the_start(
    run: Run, served: Faults, raw: Raw, packers: Mapping[str, Pack]
) -> None:
    """The server answers 416: it has no bytes where the download broke off."""

    def change() -> None:
        served.content = packers["tar"]({"a.jpg": b"1"})

    served.break_after, served.after_answer = [100_000], change
    assert run(f"--source={served.url()}")[0] == 0
    assert ranges(served) == [None, "bytes=100000-", None]
    assert raw.content() == {"a.jpg": b"1"}


def test_busy_server_is_left_alone_as_long_as_it_asks(
    run: Run, served: Faults, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    served.statuses = [(503, {"Retry-After": "7"}), (500, {}), (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    assert run(f"--source={served.url()}")[0] == 0
    assert pauses[0] == 7
    assert all(pause < 1 for pause in pauses[1:])
    assert raw.content() == FILES


def test_redirect_is_followed(run: Run, served: Faults, raw: Raw) -> None:
    served.statuses = [(302, {"Location": "/elsewhere?token=s3cr3t"})]
    code, stderr = run(f"--source={served.url()}")
    assert (code, served.asked[1].path) == (0, "/elsewhere?token=s3cr3t")
    assert raw.content() == FILES
    assert "s3cr3t" not in stderr


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_not_retried(run: Run, served: Faults, status: int) -> None:
    served.statuses = [(status, {})] * 9
    code, stderr = run(f"--source={served.url('/food.zip?token=s3cr3t', 'me:s3cr3t@')}")
    assert (code, len(served.asked)) == (3, 1)
    assert f"answers {status}" in stderr
    assert "next step: check LARDER_SOURCE" in stderr
    assert "s3cr3t" not in stderr


def test_failing_server_is_given_up(run: Run, served: Faults) -> None:
    served.statuses = [(500, {})] * 99
    code, stderr = run(f"--source={served.url('/food.zip?token=s3cr3t', 'me:s3cr3t@')}")
    assert (code, len(served.asked)) == (5, download.TRIES)
    assert "run again: the download resumes" in stderr
    assert "s3cr3t" not in stderr


def test_unreachable_address_keeps_the_old_data(run: Run, served: Faults, raw: Raw) -> None:
    assert run(f"--source={served.url()}")[0] == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        port = closed.getsockname()[1]
        code, stderr = run(f"--source=http://me:s3cr3t@127.0.0.1:{port}/food.zip?token=s3cr3t")
    assert code == 5
    assert "refused" in stderr
    assert "s3cr3t" not in stderr
    assert raw.content() == FILES


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://", 3), ("http://[::1", 2), ("http://host:port/x", 3), ("ftp://me:s3cr3t@host/x?s3cr3t", 2)],
)
def test_unusable_addresses(run: Run, url: str, code: int) -> None:
    returned, stderr = run(f"--source={url}")
    assert returned == code, stderr
    assert "next step" in stderr
    assert "s3cr3t" not in stderr


def test_too_long_content_length(run: Run, served: Faults) -> None:
    """The server promises more than it has, so the download never completes."""
    served.length = len(served.content) + 10
    code, stderr = run(f"--source={served.url()}")
    assert code == 5, stderr


@pytest.mark.parametrize("fault", ["short Content-Length", "no Content-Length", "web page", "other file"])
def test_bad_download_is_not_kept(run: Run, served: Faults, raw: Raw, fault: str) -> None:
    """The next run fetches a damaged archive again, from a server that works again."""
    good, flags = served.content, [f"--source={served.url()}"]
    if fault == "short Content-Length":
        served.length = len(good) // 2
    elif fault == "no Content-Length":
        served.no_length, served.break_after = True, [200_000]
    elif fault == "web page":
        served.content = b"<!DOCTYPE html>Log in to download" * 100
    else:
        served.content = good.replace(NOISE[:100], NOISE[100:200])
        flags.append(f"--source-sha256={hashlib.sha256(good).hexdigest().upper()}")
    code, stderr = run(*flags)
    assert code == 3, stderr
    assert "next step" in stderr
    assert not raw.folder.exists()
    served.content, served.length, served.no_length = good, None, False
    code, stderr = run(*flags)
    assert code == 0, stderr
    assert raw.content() == FILES


def test_space_is_checked_before_the_first_byte(
    run: Run, served: Faults, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(f"--source={served.url()}")[0] == 0
    served.asked.clear()
    free = len(served.content) + 1000  # enough for the archive, not for its files
    monkeypatch.setattr("larder.volume.shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    code, stderr = run(f"--source={served.url('/other.tar')}")
    assert code == 3
    assert "with its unpacked files needs" in stderr
    assert "free some space" in stderr
    assert raw.content() == FILES


def test_interrupted_download_goes_on(run: Run, served: Faults, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    served.break_after = [100_000]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download.time, "sleep", interrupt)
        code, stderr = run(f"--source={served.url()}")
    assert (code, "run the same command again" in stderr) == (130, True)
    assert run(f"--source={served.url()}")[0] == 0
    assert ranges(served) == [None, "bytes=100000-"]
    assert raw.content() == FILES


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def behind_tls(authority: trustme.CA, packers: Mapping[str, Pack], tmp_path: Path) -> Iterator[str]:
    """The URL of an archive of `FILES` on a server with a certificate of `authority`."""
    (tmp_path / "food.tar").write_bytes(packers["tar"](FILES))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    secure = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    thread = threading.Thread(target=secure.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://localhost:{secure.server_port}/food.tar"
    secure.shutdown()
    thread.join()
    secure.server_close()


def test_an_untrusted_certificate_is_not_tried_again(run: Run, behind_tls: str) -> None:
    code, stderr = run(f"--source={behind_tls}")
    assert code == 2
    assert "certificate can't be verified: unable to get local issuer certificate" in stderr
    assert "AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE" in stderr
    assert "trying again" not in stderr


def test_https_to_a_plain_port_is_not_tried_again(run: Run, served: Faults) -> None:
    code, stderr = run(f"--source={served.url().replace('http://', 'https://')}")
    assert (code, "trying again" in stderr) == (2, False), stderr
    assert "doesn't speak TLS" in stderr
    assert "LARDER_SOURCE with http://" in stderr


def test_http_to_a_port_with_tls_is_not_tried_again(run: Run, behind_tls: str) -> None:
    code, stderr = run(f"--source={behind_tls.replace('https://', 'http://')}")
    assert (code, "trying again" in stderr) == (2, False), stderr
    assert "LARDER_SOURCE with https://" in stderr


@pytest.mark.parametrize("source", ["s3://bucket/k.zip", "s3://bucket/photos/"])
def test_stores_whose_tls_fails_are_not_tried_again(
    run: Run, behind_tls: str, served: Faults, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "keys")
    secure, plain = (url.rpartition("/")[0] for url in (behind_tls, served.url()))
    for endpoint, what, step in (
        (secure, "can't be verified: unable to get local issuer certificate", "set AWS_CA_BUNDLE"),
        (plain.replace("http://", "https://"), "doesn't speak TLS: it is a plain http port", "with http://"),
        (secure.replace("https://", "http://"), "speaks TLS, and the address says http://", "with https://"),
    ):
        monkeypatch.setenv("S3_ENDPOINT_URL", endpoint)
        code, stderr = run(f"--source={source}")
        assert (code, "trying again" in stderr) == (2, False), stderr
        assert what in stderr
        assert step in stderr


def test_redirect_from_https_to_http_is_refused(
    run: Run, authority: trustme.CA, served: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Redirect(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", served.url("/food.tar?token=s3cr3t"))
            self.end_headers()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        threading.Thread(target=secure.serve_forever, kwargs={"poll_interval": 0.02}).start()
        code, stderr = run(f"--source=https://localhost:{secure.server_port}/food.tar")
        secure.shutdown()
    assert (code, "s3cr3t" in stderr, served.asked) == (3, False, []), stderr
    assert "from https to http://127.0.0.1" in stderr


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"])
def test_a_certificate_of_a_named_authority_is_trusted(
    run: Run,
    behind_tls: str,
    authority: trustme.CA,
    raw: Raw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv(name, str(bundle))
    code, stderr = run(f"--source={behind_tls}")
    assert code == 0, stderr
    assert raw.content() == FILES


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"])
def test_a_missing_bundle_of_authorities_is_named(
    run: Run, behind_tls: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    code, stderr = run(f"--source={behind_tls}")
    assert code == 2, stderr
    assert "REQUESTS_CA_BUNDLE" in stderr


def test_after_a_crash_of_the_machine_a_download_starts_over(
    run: Run, served: Faults, raw: Raw, volume: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served.break_after = [100_000] + [0] * 10
    assert run(f"--source={served.url()}")[0] == 5
    (part,) = volume.glob(".larder/raw/downloads/*/archive.part")
    part.write_bytes(b"\0" * part.stat().st_size)  # what a disk may hold of writes that were not flushed
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(machine, "_BOOT_ID", tmp_path / "boot")
    served.break_after = []
    code, stderr = run(f"--source={served.url()}")
    assert code == 0, stderr
    assert raw.content() == FILES
    assert served.asked[-1].range is None


def test_beyond_a_limit_nothing_but_the_download_stays(run: Run, served: Faults, volume: Path) -> None:
    code, stderr = run(f"--source={served.url()}", "--max-files=1")
    assert code == 3, stderr
    assert not list(volume.glob(".larder/raw/new/*"))
    asked = len(served.asked)
    assert run(f"--source={served.url()}")[0] == 0
    assert len(served.asked) == asked, "it was there already"
