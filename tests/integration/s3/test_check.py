"""`--task check` and `--task bucket` against real stores, healthy and broken in many ways."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import signal
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
import trustme

from tests.conftest import Proxy, StartProxy, Store, Until
from tests.integration.conftest import Result, Stage

NAMES = [
    "reachability",
    "clock",
    "credentials",
    "bucket",
    "path style",
    "write",
    "read",
    "list",
    "ranges",
    "latency",
    "ETags",
    "multipart",
    "delete",
]
AFTER_REACHABILITY, AFTER_CREDENTIALS, AFTER_BUCKET, AFTER_WRITE = NAMES[1:], NAMES[3:], NAMES[4:], NAMES[6:]


def outcomes(stdout: str) -> dict[str, str]:
    """Return the result of each check from its line."""
    return {
        name: line.split()[0] for line in stdout.splitlines() for name in NAMES if re.match(rf"\w+ +{name}  ", line)
    }


def line_of(stdout: str, name: str) -> str:
    return next(line for line in stdout.splitlines() if re.match(rf"\w+ +{name}  ", line))


def nothing_is_left(store: Store, bucket: str) -> bool:
    objects = store.client.list_objects_v2(Bucket=bucket).get("Contents", ())
    uploads = store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    return not objects and not uploads


class Check(Protocol):
    """What the fixture `check` gives."""

    def __call__(self, *flags: str, **changed: str) -> Result: ...


@pytest.fixture
def check(stage: Stage, store: Store, bucket: str) -> Check:
    """Checks the store, with some settings changed: `check(S3_BUCKET="other")`."""

    def check(*flags: str, **changed: str) -> Result:
        ended = stage("s3", *flags, env=store.env | {"S3_BUCKET": bucket} | changed)
        secret = changed.get("AWS_SECRET_ACCESS_KEY", store.secret_key)
        assert not secret or secret not in ended.stdout + ended.stderr
        return ended

    return check


@pytest.mark.parametrize("prefix", ["", "team/food"])
def test_a_store_that_is_well(check: Check, store: Store, bucket: str, prefix: str) -> None:
    ended = check(S3_PREFIX=prefix)
    assert ended.code == 0, ended.stdout + ended.stderr
    assert outcomes(ended.stdout) == dict.fromkeys(NAMES, "ok")
    assert len(ended.stdout.splitlines()) == len(NAMES)
    assert "is fine" in ended.stderr
    assert nothing_is_left(store, bucket)


def test_json_for_machines(check: Check) -> None:
    ended = check(LARDER_LOG="json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["check"] for line in lines] == NAMES
    assert {line["result"] for line in lines} == {"ok"}
    figures = {line["check"]: line for line in lines}
    assert 0 < figures["latency"]["median_ms"] <= figures["latency"]["max_ms"]
    assert abs(figures["clock"]["skew_s"]) < 10, "the time from answering to looking at the answer is in it"
    assert ended.events[-1]["event"] == "next"


def assert_failed(ended: Any, code: int, failed: str, skipped: list[str], *words: str) -> None:
    """Check that `failed` failed, that its dependents were skipped, and that the message has the words."""
    results = outcomes(ended.stdout)
    assert results.get(failed) == "FAILED", ended
    assert [name for name, result in results.items() if result == "skipped"] == skipped
    assert all(f"since {failed} failed" in line_of(ended.stdout, name) for name in skipped)
    assert ended.code == code
    for word in words:
        assert word in line_of(ended.stdout, failed)
    assert "next step" in ended.stderr


def test_a_wrong_key(check: Check) -> None:
    ended = check(AWS_ACCESS_KEY_ID="nobody")
    assert_failed(ended, 2, "credentials", AFTER_CREDENTIALS, "doesn't know the access key", "AWS_ACCESS_KEY_ID")


def test_a_wrong_secret(check: Check) -> None:
    ended = check(AWS_SECRET_ACCESS_KEY="not-the-secret")
    assert_failed(ended, 2, "credentials", AFTER_CREDENTIALS, "secret key is wrong", "AWS_SECRET_ACCESS_KEY")


def test_a_missing_bucket(check: Check) -> None:
    ended = check(S3_BUCKET="larder-not-there")
    assert_failed(ended, 2, "bucket", AFTER_BUCKET, "no such bucket", "make s3-bucket BUCKET=larder-not-there")


def test_no_bucket_is_set(check: Check) -> None:
    assert_failed(check(S3_BUCKET=""), 2, "bucket", AFTER_BUCKET, "S3_BUCKET is not set")


def test_an_endpoint_that_is_down(check: Check, proxy: Proxy) -> None:
    proxy.shutdown()
    proxy.server_close()
    ended = check(S3_ENDPOINT_URL=proxy.endpoint)
    assert_failed(ended, 5, "reachability", AFTER_REACHABILITY, "doesn't answer", "S3_ENDPOINT_URL")


def test_a_name_without_an_address(check: Check) -> None:
    ended = check(S3_ENDPOINT_URL="http://no-such-store.invalid:9000")
    assert_failed(ended, 2, "reachability", AFTER_REACHABILITY, "no-such-store.invalid has no address", "spelling")


def test_tls_to_a_plain_port(check: Check, store: Store, start_proxy: StartProxy) -> None:
    ended = check(S3_ENDPOINT_URL=start_proxy(store).endpoint.replace("http://", "https://"))
    assert_failed(ended, 2, "reachability", AFTER_REACHABILITY, "doesn't speak TLS", "http://")


@pytest.fixture
def tls(proxy: Proxy, tmp_path: Path) -> tuple[str, str]:
    """The store behind TLS: its address with https, and the file with the authority's certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return proxy.endpoint.replace("http://", "https://"), str(tmp_path / "authority.pem")


def test_a_store_behind_tls(check: Check, tls: tuple[str, str]) -> None:
    endpoint, authority = tls
    assert check(S3_ENDPOINT_URL=endpoint, AWS_CA_BUNDLE=authority).code == 0
    ended = check(S3_ENDPOINT_URL=endpoint)
    assert_failed(ended, 2, "reachability", AFTER_REACHABILITY, "can't be verified", "AWS_CA_BUNDLE")


def test_http_to_a_tls_port(check: Check, tls: tuple[str, str]) -> None:
    ended = check(S3_ENDPOINT_URL=tls[0].replace("https://", "http://"))
    assert_failed(ended, 2, "reachability", AFTER_REACHABILITY, "speaks TLS", "https://")


class HostStyle(http.server.BaseHTTPRequestHandler):
    """An HTTP proxy in front of a store that takes the bucket only from the host's name."""

    protocol_version = "HTTP/1.1"
    target, domain = "", "store.test"

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        status, headers, answer = 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"
        if url.netloc != self.domain or url.path == "/":
            upstream = http.client.HTTPConnection(self.target, timeout=60)
            path = url.path + (f"?{url.query}" if url.query else "")
            upstream.request(self.command, path, body, dict(self.headers.items()))
            response = upstream.getresponse()
            status, headers, answer = response.status, dict(response.getheaders()), response.read()
            upstream.close()
        self.send_response_only(status)
        for name in headers.keys() - {"Content-Length", "Transfer-Encoding", "Connection"}:
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_any

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


def test_a_store_that_takes_no_path_style(stage: Stage, minio_server: Store, until: Until, tmp_path: Path) -> None:
    image = subprocess.check_output(["docker", "inspect", "-f", "{{.Config.Image}}", minio_server.container], text=True)
    keys = {"AWS_ACCESS_KEY_ID": "domain-user", "AWS_SECRET_ACCESS_KEY": "domain-secret"}
    values = ("MINIO_ROOT_USER=domain-user", "MINIO_ROOT_PASSWORD=domain-secret", "MINIO_DOMAIN=store.test")
    command = ["docker", "run", "-d", "--rm", "-p", "127.0.0.1::9000"]
    handed = [word for value in values for word in ("-e", value)]
    container = subprocess.check_output([*command, *handed, image.strip(), "server", "/data"], text=True).strip()
    try:
        target = subprocess.check_output(["docker", "port", container, "9000"], text=True).split()[0]
        settings = keys | {"S3_BUCKET": "food", "S3_ENDPOINT_URL": f"http://{target}"}
        until(lambda: stage("s3", "--task=bucket", env=settings).code == 0, "the store takes a bucket")
        handler = type("Handler", (HostStyle,), {"target": target})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            through = {"S3_ENDPOINT_URL": "http://store.test", "HTTP_PROXY": f"http://127.0.0.1:{server.server_port}"}
            ended = stage("s3", env=settings | through)
            server.shutdown()
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], check=True, capture_output=True)
    assert outcomes(ended.stdout)["credentials"] == "ok", ended
    assert outcomes(ended.stdout)["bucket"] == outcomes(ended.stdout)["path style"] == "FAILED"
    assert "requires the bucket in the host name" in line_of(ended.stdout, "path style")
    assert ended.code == 2


class Page(http.server.BaseHTTPRequestHandler):
    """A web server that returns the same page for every URL."""

    status = 200

    def do_GET(self) -> None:
        body = b"<!doctype html><title>Welcome</title>"
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def website(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a web server that answers with the status of the parameter."""
    handler = type("Handler", (Page,), {"status": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


SITE = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-of-nobody", "S3_BUCKET": "food"}


@pytest.mark.parametrize("website", [200, 403, 404], indirect=True)
def test_a_web_server_is_no_store(stage: Stage, website: str) -> None:
    ended = stage("s3", env=SITE | {"S3_ENDPOINT_URL": website})
    assert_failed(ended, 2, "reachability", AFTER_REACHABILITY, "not as an S3 store does", "S3_ENDPOINT_URL")


@pytest.mark.parametrize("website", [502], indirect=True)
def test_a_gateway_without_a_store(stage: Stage, website: str) -> None:
    ended = stage("s3", env=SITE | {"S3_ENDPOINT_URL": website})
    assert_failed(ended, 5, "reachability", AFTER_REACHABILITY, "answers 502")


SHIFTED = """
import datetime, time
SECONDS = {seconds}
true_time, true_datetime = time.time, datetime.datetime
class Shifted(true_datetime):
    @classmethod
    def now(cls, tz=None):
        return true_datetime.now(tz) + datetime.timedelta(seconds=SECONDS)
    @classmethod
    def utcnow(cls):
        return true_datetime.utcnow() + datetime.timedelta(seconds=SECONDS)
time.time = lambda: true_time() + SECONDS
datetime.datetime = Shifted
"""


@pytest.fixture
def shifted(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """The environment of a Python with a clock that is ahead by some seconds."""

    def shifted(seconds: int) -> dict[str, str]:
        (tmp_path / "sitecustomize.py").write_text(SHIFTED.format(seconds=seconds))
        return {"PYTHONPATH": str(tmp_path)}

    return shifted


@pytest.mark.parametrize(("minutes", "direction"), [(20, "ahead of"), (-20, "behind")])
def test_a_clock_that_is_off_by_20_minutes(
    check: Check, shifted: Callable[[int], dict[str, str]], minutes: int, direction: str
) -> None:
    ended = check(**shifted(60 * minutes))
    assert f"20 minutes {direction} the store's" in line_of(ended.stdout, "clock")
    assert "set the clock" in line_of(ended.stdout, "clock")
    assert outcomes(ended.stdout)["clock"] == outcomes(ended.stdout)["credentials"] == "FAILED"
    assert "RequestTimeTooSkewed" in line_of(ended.stdout, "credentials")  # the store's own word
    assert ended.code == 2


def test_a_clock_that_is_off_by_5_minutes(check: Check, shifted: Callable[[int], dict[str, str]]) -> None:
    ended = check(**shifted(300))
    assert ended.code == 0
    assert outcomes(ended.stdout) == dict.fromkeys(NAMES, "ok") | {"clock": "warning"}
    assert "5 minutes ahead" in line_of(ended.stdout, "clock")


MinioUser = Callable[[list[dict[str, Any]]], dict[str, str]]


@pytest.fixture
def minio_user(minio_server: Store, tmp_path: Path) -> MinioUser:
    """Creates a user of MinIO with some policy statements, and returns its keys as settings."""

    def in_minio(script: str, given: str = "") -> None:
        command = ["docker", "exec", "--interactive", minio_server.container, "sh", "-ec", script]
        subprocess.run(command, input=given, text=True, check=True, capture_output=True)

    def make(statements: list[dict[str, Any]]) -> dict[str, str]:
        name, secret = f"user-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | one for one in statements]})
        root = f"{minio_server.access_key} {minio_server.secret_key}"
        in_minio(f"cat >/tmp/{name}.json; mc alias set larder http://localhost:9000 {root}", policy)
        in_minio(f"mc admin user add larder {name} {secret}; mc admin policy create larder {name} /tmp/{name}.json")
        in_minio(f"mc admin policy attach larder {name} --user {name}")
        return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret}

    return make


ALL = "arn:aws:s3:::*"
only_minio = pytest.mark.parametrize("store", ["minio"], indirect=True)


def test_a_user_who_may_only_read(check: Check, reader: dict[str, str]) -> None:
    ended = check(**reader)
    assert_failed(ended, 2, "write", AFTER_WRITE, "access is denied", "ask the bucket's owner")
    assert "left behind" not in ended.stderr


@only_minio
def test_a_user_who_may_not_delete(check: Check, store: Store, bucket: str, minio_user: MinioUser) -> None:
    keys = minio_user([{"Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"], "Resource": [ALL]}])
    ended = check(**keys)
    assert_failed(ended, 2, "delete", [], "access is denied")
    assert f"may be left behind: s3://{bucket}/_larder-check-" in ended.stderr


def test_a_bucket_of_another(check: Check, store: Store, reader: dict[str, str]) -> None:
    name = f"larder-test-{uuid.uuid4().hex[:12]}"
    store.client.create_bucket(Bucket=name)
    try:
        ended = check(S3_BUCKET=name, **reader)
        assert_failed(ended, 2, "bucket", AFTER_BUCKET, "belongs to somebody else", "check S3_BUCKET")
        made = check("--task=bucket", S3_BUCKET=name, **reader)
        assert made.code == 2
        assert "belongs to somebody else" in made.stderr
    finally:
        store.client.delete_bucket(Bucket=name)


def test_a_store_that_damages_data(check: Check, store: Store, bucket: str, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: "corrupt" if method == "GET" and "small" in path else None
    ended = check(S3_ENDPOINT_URL=proxy.endpoint)
    assert_failed(ended, 5, "read", ["ranges", "latency"], "other content", "damages data")
    assert nothing_is_left(store, bucket)


def test_parts_of_a_failed_upload_are_dropped(check: Check, store: Store, bucket: str, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: "reset-request" if "partNumber=2" in path else None
    ended = check(S3_ENDPOINT_URL=proxy.endpoint)
    assert_failed(ended, 5, "multipart", [], "in two parts", "the connection")
    assert outcomes(ended.stdout)["delete"] == "ok"
    assert nothing_is_left(store, bucket)


def test_a_store_that_serves_no_ranges_and_other_etags(check: Check, proxy: Proxy) -> None:

    class Poorer(proxy.RequestHandlerClass):  # type: ignore[name-defined,misc]
        def _forward(self, body: bytes) -> Any:
            status, headers, answer = super()._forward(body)
            changed = {name: value for name, value in headers.items() if name.lower() != "etag"} | {"ETag": '"0-1"'}
            return 200 if status == 206 else status, changed if self.command == "PUT" and body else headers, answer

    proxy.RequestHandlerClass = Poorer
    ended = check(S3_ENDPOINT_URL=proxy.endpoint)
    assert outcomes(ended.stdout)["ETags"] == "warning"
    assert "LARDER_VERIFY_REMOTE=read" in line_of(ended.stdout, "ETags")
    assert outcomes(ended.stdout)["ranges"] == "FAILED"
    assert "instead of 206" in line_of(ended.stdout, "ranges")
    assert ended.code == 5


@pytest.mark.parametrize("moment", ["small", "partNumber=2"])
def test_what_is_interrupted_leaves_nothing(
    stage: Stage, store: Store, bucket: str, proxy: Proxy, until: Until, moment: str
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> None:
        if moment in path and method in ("GET", "PUT") and not reached.is_set():
            reached.set()
            go_on.wait(60)

    proxy.fault = hold
    process = stage.start("s3", env=store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    try:
        assert reached.wait(60)
        process.send_signal(signal.SIGTERM)
        go_on.set()
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    until(lambda: nothing_is_left(store, bucket), "the check's objects and uploads are gone")


def test_nothing_is_set(stage: Stage) -> None:
    ended = stage("s3", env={"AWS_EC2_METADATA_DISABLED": "true"})
    assert ended.code == 2
    assert "make s3-up" in ended.stderr
    assert ".env.example" in ended.stderr
    assert ended.stdout == ""


def test_one_key_without_the_other(check: Check) -> None:
    ended = check(AWS_SECRET_ACCESS_KEY="")
    assert ended.code == 2
    assert "belong together" in ended.stderr


def test_the_bucket_is_made_once(stage: Stage, store: Store) -> None:
    name = f"larder-test-{uuid.uuid4().hex[:12]}"
    settings = store.env | {"S3_BUCKET": name}
    try:
        first, second = (stage("s3", "--task", "bucket", env=settings) for _ in range(2))
        assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
        assert "made" in first.stderr
        assert "already there" in second.stderr
        assert store.client.list_objects_v2(Bucket=name)["KeyCount"] == 0
    finally:
        store.client.delete_bucket(Bucket=name)


def test_a_bucket_that_is_made_by_two_at_once(stage: Stage, store: Store) -> None:
    name = f"larder-test-{uuid.uuid4().hex[:12]}"
    both = [stage.start("s3", "--task=bucket", env=store.env | {"S3_BUCKET": name}) for _ in range(2)]
    try:
        errors = [process.communicate(timeout=60)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], errors
    finally:
        store.client.delete_bucket(Bucket=name)


def test_a_name_that_no_store_takes(stage: Stage, store: Store) -> None:
    ended = stage("s3", "--task", "bucket", env=store.env | {"S3_BUCKET": "Food_11"})
    assert ended.code == 2
    assert "give the bucket a name of 3 to 63 lower-case letters" in ended.stderr


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_aws_endpoint_url_is_another_name_for_the_address(check: Check, store: Store, name: str) -> None:
    ended = check(**{"S3_ENDPOINT_URL": "", name: store.env["S3_ENDPOINT_URL"]})
    assert ended.code == 0, ended.stdout
    assert store.env["S3_ENDPOINT_URL"] in ended.stdout + ended.stderr


def test_rclone_container_is_another_name_for_the_bucket(check: Check, bucket: str) -> None:
    ended = check(S3_BUCKET="", RCLONE_CONTAINER=bucket)
    assert ended.code == 0, ended.stdout
