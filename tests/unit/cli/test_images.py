"""Pinning the base image, against a server that speaks a registry's API."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from larder.cli import base_image
from larder.errors import ConfigurationError, LarderError, ServiceError

OCI = "application/vnd.oci.image.index.v1+json"
INDEX = json.dumps({"schemaVersion": 2, "mediaType": OCI, "manifests": [{"digest": "sha256:" + "0" * 64}]}).encode()
DIGEST = f"sha256:{hashlib.sha256(INDEX).hexdigest()}"
PATH = "/v2/library/debian/manifests/bookworm-slim"


class Registry:
    """A registry with one answer for each path; `asked` has its requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append((self.path, dict(self.headers)))
                registry.answers.get(self.path.split("?")[0], answer(404))(self)

            def log_message(self, *words: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Any], None]:
    def send(request: Any) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return send


@pytest.fixture
def registry() -> Iterator[Registry]:
    it = Registry()
    yield it
    it.server.shutdown()
    it.server.server_close()


@pytest.fixture
def root(tmp_path: Path, registry: Registry) -> Path:
    (tmp_path / "services").mkdir()
    (tmp_path / base_image.DOCKERFILE).write_text(
        f"# The images.\nARG BASE_IMAGE={registry.host}/library/debian:bookworm-slim\nARG STAGE=extract\n"
        "FROM ${BASE_IMAGE} AS system\n"
    )
    return tmp_path


def with_token(registry: Registry) -> Callable[[Any], None]:
    """Return an answer that requires a token, which Docker Hub gives to everybody."""
    challenge = f'Bearer realm="http://{registry.host}/token",service="registry.test",scope="repository:x:pull"'

    def send(request: Any) -> None:
        if request.headers.get("Authorization") == "Bearer t0ken":
            answer(200, INDEX, Docker_Content_Digest=DIGEST)(request)
        else:
            answer(401, b"{}", WWW_Authenticate=challenge)(request)

    return send


@pytest.mark.parametrize("token", [False, True], ids=["open", "with a token"])
def test_the_base_gets_the_digest_of_what_the_registry_gives(root: Path, registry: Registry, token: bool) -> None:
    registry.answers[PATH] = with_token(registry) if token else answer(200, INDEX, Docker_Content_Digest=DIGEST)
    registry.answers["/token"] = answer(200, b'{"token": "t0ken"}')
    before = (root / base_image.DOCKERFILE).read_text()
    for _ in range(2):  # pinned again, it stays as it is
        pinned = base_image.pin_base_image(root)
        assert pinned == base_image.read_base_image(root) == f"{registry.host}/library/debian:bookworm-slim@{DIGEST}"
    after = (root / base_image.DOCKERFILE).read_text()
    assert after.replace(f"@{DIGEST}", "") == before
    assert OCI in registry.asked[0][1]["Accept"]
    if token:
        path = next(path for path, _ in registry.asked if path.startswith("/token"))
        assert path == "/token?service=registry.test&scope=repository%3Alibrary%2Fdebian%3Apull"


def test_a_newer_base_replaces_the_digest(root: Path, registry: Registry) -> None:
    registry.answers[PATH] = answer(200, INDEX)
    base_image.pin_base_image(root)
    newer = INDEX.replace(b"0" * 64, b"1" * 64)
    registry.answers[PATH] = answer(200, newer)
    assert base_image.pin_base_image(root).endswith(hashlib.sha256(newer).hexdigest())
    assert (root / base_image.DOCKERFILE).read_text().count("sha256:") == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (answer(404), "no such image"), (answer(500), "refuses"), (answer(429), "refuses"),
        (answer(200, INDEX, Docker_Content_Digest="sha256:" + "f" * 64), "another digest|the content has the digest"),
        (answer(200, b"<html>"), "that is not an image"), (answer(200, b"[]"), "is not an image"),
        (answer(200, b'{"schemaVersion": 1}'), "is not an image"), (answer(200, b'{"schemaVersion": 2}'), "something"),
        (answer(200, b"[" * 100_000), "is not an image"), (answer(200, b" " * (5 << 20)), "too long"),
        (answer(401), "unknown kind"), (answer(401, WWW_Authenticate="Basic realm=x"), "unknown kind of login"),
        (answer(401, WWW_Authenticate='Bearer realm="file:///etc/passwd"'), "unknown kind of login"),
        (answer(302, Location="file:///etc/passwd"), "refuses"),
        (lambda request: request.wfile.write(b"\x1b[31mnonsense\r\n"), "no answer"),
        (lambda request: request.connection.close(), "no answer"),
    ],
    ids=["absent", "failed", "too many", "another digest", "a page", "a list", "version 1", "empty", "deep", "long",
         "login", "basic", "a file for a token", "a file", "nonsense", "hangs up"],
)  # fmt: skip
def test_what_is_no_image_pins_nothing(root: Path, registry: Registry, given: Callable[[Any], None], says: str) -> None:
    registry.answers[PATH] = given
    before = (root / base_image.DOCKERFILE).read_text()
    with pytest.raises(LarderError, match=says) as caught:
        base_image.pin_base_image(root)
    assert isinstance(caught.value, ServiceError | ConfigurationError) and caught.value.what.isprintable()
    assert (root / base_image.DOCKERFILE).read_text() == before
    assert [path.name for path in (root / "services").iterdir()] == ["Dockerfile"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no", b'{"token": "a b"}', b'{"token": 3}', b'{"token": "a\\nb"}'])
def test_a_token_that_is_none_pins_nothing(root: Path, registry: Registry, body: bytes) -> None:
    registry.answers |= {PATH: with_token(registry), "/token": answer(200, body)}
    with pytest.raises(ServiceError):
        base_image.pin_base_image(root)


def test_no_registry_pins_nothing(root: Path, registry: Registry) -> None:
    registry.server.shutdown()
    registry.server.server_close()
    with pytest.raises(ServiceError, match="no answer"):
        base_image.pin_base_image(root)


@pytest.mark.parametrize(
    ("text", "address", "tag"),
    [
        ("debian:bookworm-slim", "https://registry-1.docker.io/v2/library/debian", "bookworm-slim"),
        ("debian", "https://registry-1.docker.io/v2/library/debian", "latest"),
        ("org/debian:12", "https://registry-1.docker.io/v2/org/debian", "12"),
        ("mirror.example.org/debian:12", "https://mirror.example.org/v2/debian", "12"),
        ("mirror:5000/library/debian:12", "https://mirror:5000/v2/library/debian", "12"),
        ("localhost:5000/debian:12", "http://localhost:5000/v2/debian", "12"),
        (f"debian:12@{DIGEST}", "https://registry-1.docker.io/v2/library/debian", "12"),
    ],
)
def test_an_image_s_name_says_whom_to_ask(text: str, address: str, tag: str) -> None:
    image = base_image.parse(text)
    assert (image.address, image.tag) == (address, tag)
    assert base_image.parse(image.with_digest(DIGEST)) == image._replace(digest=DIGEST)


@pytest.mark.parametrize(
    "text", ["", "Debian", "debian:", "debian@sha256:1", "a b", "../x", "debian:a/b", "http://x/y", "debian:12\nRUN x"]
)
def test_what_is_no_image_s_name_is_reported(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of an image"):
        base_image.parse(text)


def test_the_checkout_has_one_base_everywhere() -> None:
    root = Path(__file__).resolve().parents[3]
    base = base_image.read_base_image(root)
    base_image.parse(base)
    assert f"BASE_IMAGE={base}\n" in (root / ".env.example").read_text()
    compose = (root / "compose/stage.yaml").read_text()
    assert re.findall(r"\$\{BASE_IMAGE:-([^}]*)\}", compose) == [base]
