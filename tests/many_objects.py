"""An S3 server with any number of images, none of which exists: each is made when it is read, and no two are alike.

Requests for other buckets go to a real store. It is for what must not depend on the number of objects, and cheap enough
for a million of them: `python -m tests.many_objects 1000000 http://127.0.0.1:9000`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from PIL import Image

BUCKET = "many"
_PAGE = 1000
FOLDERS = [f"{split}/class_{label}/" for split in ("train", "val") for label in range(10)]


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(stream, "JPEG")
    return stream.getvalue()


class ManyObjects:
    """The keys `train/class_3/0000123.jpg` and so on, of `count` objects in two splits and ten classes."""

    def __init__(self, count: int, upstream: str = "", folders: Sequence[str] = FOLDERS) -> None:
        """`folders` are sorted and end in a slash; the objects are shared out among them."""
        self.count, self.upstream = count, urlsplit(upstream)
        self.requests = 0
        self._template = _jpeg()
        self._folders = list(folders)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client's requests."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                method, target = head.split(b" ", 2)[:2]
                url = urlsplit(target.decode())
                if not url.path.startswith(f"/{BUCKET}"):
                    await self._forward(head, reader, writer)
                    continue
                answer = self._answer(method.decode(), unquote(url.path), parse_qs(url.query))
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, path: str, query: dict[str, list[str]]) -> bytes:
        key = path.removeprefix(f"/{BUCKET}").lstrip("/")
        if "list-type" in query:
            return _response("200 OK", self._page(query).encode(), "application/xml")
        if self._holds(key):
            image = self._image(key)
            return _response("200 OK", image if method == "GET" else b"", "image/jpeg", _etag(image))
        missing = b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>"
        return _response("404 Not Found", missing, "application/xml")

    def _holds(self, key: str) -> bool:
        folder, _, name = key.rpartition("/")
        return f"{folder}/" in self._folders and name.endswith(".jpg") and int(name[:-4]) < self._in(folder + "/")

    def _in(self, folder: str) -> int:
        place, folders = self._folders.index(folder), len(self._folders)
        return self.count // folders + (place < self.count % folders)

    def _page(self, query: dict[str, list[str]]) -> str:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        folders = [folder for folder in self._folders if folder.startswith(prefix)]
        inside = sorted({folder[: folder.index("/", len(prefix)) + 1] for folder in folders if folder != prefix})
        if delimiter and inside:
            common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in inside)
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{common}</ListBucketResult>"
        place, start = map(int, query.get("continuation-token", ["0-0"])[0].split("-"))
        listed: list[str] = []
        left = _PAGE
        while left and place < len(folders):
            end = min(self._in(folders[place]), start + left)
            listed += [self._item(folders[place], number) for number in range(start, end)]
            left -= end - start
            place, start = (place, end) if end < self._in(folders[place]) else (place + 1, 0)
        more = place < len(folders)
        token = f"<NextContinuationToken>{place}-{start}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(listed)}"
            "</ListBucketResult>"
        )

    def _item(self, folder: str, number: int) -> str:
        key = f"{folder}{number:07d}.jpg"
        image = self._image(key)
        return f"<Contents><Key>{key}</Key><Size>{len(image)}</Size><ETag>&quot;{_etag(image)}&quot;</ETag></Contents>"

    def _image(self, key: str) -> bytes:
        """A picture with its key in a comment (JPEG marker FFFE)."""
        comment = key.encode()
        length = (len(comment) + 2).to_bytes(2, "big")
        return self._template[:2] + b"\xff\xfe" + length + comment + self._template[2:]

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        try:
            if b"expect: 100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
            out.write(head[:-2] + b"Connection: close\r\n\r\n")
            out.write(await reader.readexactly(_length(head)))
            answer = await there.read()
            writer.write(answer)
            await writer.drain()
            if b"connection: close" in answer.split(b"\r\n\r\n", 1)[0].lower():
                raise ConnectionError
        finally:
            out.close()


def _etag(image: bytes) -> str:
    return hashlib.md5(image, usedforsecurity=False).hexdigest()


def _length(head: bytes) -> int:
    lines = (line.split(b":", 1) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return next((int(value) for _, value in lines), 0)


def _response(status: str, body: bytes, kind: str, etag: str = "") -> bytes:
    tag = f'ETag: "{etag}"\r\n' if etag else ""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{tag}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def many_objects(
    count: int, upstream: str = "", port: int = 0, folders: Sequence[str] = FOLDERS
) -> Iterator[tuple[ManyObjects, str]]:
    """A running server, in a thread of its own; yields it and its address."""
    objects, loop, started = ManyObjects(count, upstream, folders), asyncio.new_event_loop(), threading.Event()
    address = ""

    async def run() -> None:
        nonlocal address
        server = await asyncio.start_server(objects.serve, "127.0.0.1", port, limit=1 << 20, backlog=256)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await asyncio.Event().wait()

    task: asyncio.Task[None] | None = None

    def main() -> None:
        nonlocal task
        asyncio.set_event_loop(loop)
        task = loop.create_task(run())
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        clients = asyncio.all_tasks(loop)
        for client in clients:
            client.cancel()
        loop.run_until_complete(asyncio.gather(*clients, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    started.wait()
    try:
        yield objects, address
    finally:
        assert task is not None
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


if __name__ == "__main__":
    with many_objects(int(sys.argv[1]), "".join(sys.argv[2:3]), int("".join(sys.argv[3:4]) or 0)) as (_, where):
        print(where, flush=True)
        threading.Event().wait()
