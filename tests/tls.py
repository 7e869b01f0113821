"""TLS in front of a store: a certificate of an authority of the test's own, and a proxy that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trustme


class TlsProxy(NamedTuple):
    """A running proxy."""

    endpoint: str
    authority: Path
    """The authority's certificate."""


@contextmanager
def serve_tls(endpoint: str, folder: Path) -> Iterator[TlsProxy]:
    """Forward TLS connections to a store with plain http while a block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    certificate = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    host, port = endpoint.removeprefix("http://").split(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, store_writer), pump(store_reader, writer))

    serving = asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(serving, loop).result(30)
    yield TlsProxy(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", certificate)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
