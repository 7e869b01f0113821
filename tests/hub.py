"""A server with the part of the Hugging Face Hub's API that its library uses, and with faults.

Endpoints, headers and error codes are those of https://huggingface.co/docs/hub/api and of what the hub answers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT, OLDER = "a" * 40, "b" * 40
REPOSITORY = "some-one/pictures.v1"


class Asked(NamedTuple):
    """A request that the server saw."""

    method: str
    path: str
    range: str | None
    token: str | None


class Answer(NamedTuple):
    """What the server sends."""

    status: int
    headers: dict[str, str]
    body: bytes


class Hub:
    """One dataset on a hub, and how the hub misbehaves."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.revisions = {"main": COMMIT, COMMIT: COMMIT, "v1.0": OLDER, OLDER: OLDER, "refs/convert/parquet": COMMIT}
        self.large = 1000
        """From so many bytes on a file is kept aside (LFS), with its sha256, and served from another path."""
        self.token = ""
        """Who has another one sees nothing."""
        self.gated = False
        self.page = 1000
        """Files in one answer of a listing."""
        self.next = ""
        """Where each answer of a listing says that the next one is; empty for the right place."""
        self.statuses: list[int] = []
        """Answers to files before they are sent."""
        self.break_after: list[int] = []
        """For the next answers with a file: break the connection after so many bytes."""
        self.change: Callable[[str, Any], Any] = lambda _path, answer: answer
        """What the API says instead: path of the request, and the right answer."""
        self.content: Callable[[str, bytes], bytes] = lambda _path, content: content
        """What is sent instead of a file."""
        self.kept_at = self.url.replace("127.0.0.1", "localhost")
        """Where it redirects to for files that are kept aside."""
        self.asked: list[Asked] = []

    def answer(self, asked: Asked, query: dict[str, list[str]], form: dict[str, list[str]]) -> Answer:
        """The answer to a request."""
        self.asked.append(asked)
        if asked.path.startswith("/lfs/"):  # a signed address on another host
            return self._file(asked, next(c for c in self.files.values() if _sha256(c) == asked.path[5:]))
        if self.token and asked.token != f"Bearer {self.token}":
            return _refused(401, "RepoNotFound", "Invalid username or password.")
        parts = asked.path.strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        if "/".join(parts[1:3]) != REPOSITORY:
            return _refused(404, "RepoNotFound", "Repository not found")
        what, rest = (parts[3], "/".join(parts[4:])) if len(parts) > 3 else ("revision", "main")
        revision = next((name for name in sorted(self.revisions, key=len) if f"{rest}/".startswith(f"{name}/")), None)
        if revision is None:
            return _refused(404, "RevisionNotFound", "Invalid rev id")
        path = rest.removeprefix(revision).strip("/")
        if not api:
            return self._resolve(asked, path, self.revisions[revision])
        if what == "revision":
            return self._json(asked.path, {"id": REPOSITORY, "sha": self.revisions[revision], "gated": self.gated})
        if what == "paths-info":
            return self._json(asked.path, [item for path in form.get("paths", ()) for item in self._at(path)])
        return self._tree(asked.path, path, query)

    def _json(self, path: str, content: Any, headers: dict[str, str] | None = None) -> Answer:
        changed = self.change(path, content)
        body = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return Answer(200, {"Content-Type": "application/json"} | (headers or {}), body)

    def _at(self, path: str) -> list[dict[str, Any]]:
        if path in self.files:
            return [self._described(path)]
        inside = any(name.startswith(f"{path}/") for name in self.files)
        return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0}] if inside else []

    def _described(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        described = {"type": "file", "path": path, "size": len(content), "oid": blob}
        if len(content) >= self.large:
            described["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        return described

    def _tree(self, asked: str, folder: str, query: dict[str, list[str]]) -> Answer:
        paths = sorted(path for path in self.files if not folder or path.startswith(f"{folder}/"))
        if not paths:
            return _refused(404, "EntryNotFound", "Not found")
        start = int(query.get("cursor", ["0"])[0])
        more = start + self.page < len(paths)
        after = self.next or f"{self.url}{asked}?recursive=true&cursor={start + self.page}"
        listed = [self._described(path) for path in paths[start : start + self.page]]
        return self._json(asked, listed, {"Link": f'<{after}>; rel="next"'} if more or self.next else {})

    def _resolve(self, asked: Asked, path: str, commit: str) -> Answer:
        if self.gated:
            return _refused(403 if asked.token else 401, "GatedRepo", "Access to this dataset is restricted")
        if path not in self.files:
            return _refused(404, "EntryNotFound", "Entry not found")
        content, described = self.files[path], self._described(path)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if "lfs" in described:
            digest = described["lfs"]["oid"]
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"', "ETag": '"x"'}
            return Answer(302, headers | linked | {"Location": f"{self.kept_at}/lfs/{digest}"}, b"")
        answer = self._file(asked, content)
        return answer._replace(headers=headers | {"ETag": f'"{described["oid"]}"'} | answer.headers)

    def _file(self, asked: Asked, content: bytes) -> Answer:
        if asked.method == "GET" and self.statuses:
            return Answer(self.statuses.pop(0), {}, b"")
        start = int((asked.range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        ranged = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked.range else {}
        return Answer(206 if asked.range else 200, ranged, self.content(asked.path, content)[start:])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _refused(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return Answer(status, headers, json.dumps({"error": message}).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        asked = Asked(self.command, unquote(url.path), self.headers.get("Range"), self.headers.get("Authorization"))
        status, headers, body = hub.answer(asked, parse_qs(url.query), form)
        whole = len(body)
        file = "/resolve/" in asked.path or asked.path.startswith("/lfs/")
        if file and self.command == "GET" and status < 300 and hub.break_after:
            body = body[: hub.break_after.pop(0)]
        self.close_connection = len(body) < whole
        self.send_response(status)
        for name, value in ({"Content-Length": str(whole)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the client has gone
            self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_POST = do_GET


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on loopback."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listening.hub = Hub(listening.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield listening.hub  # type: ignore[attr-defined]
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
