"""What stands between s3fs and a store: answers that make progress, and none longer than was asked for.

aiohttp waits as long as single bytes arrive, and reads a whole answer into memory. `larder.s3_session` does the same
for boto3.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiobotocore.parsers import AioResponseParserFactory  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError

from larder.connections import Pace, StalledError
from larder.s3_session import MOST_BYTES as MOST_MESSAGE_BYTES
from larder.s3_session import SENSELESS, with_error

_HEADS_SECONDS = 2
"""How many stall times an answer's head may take, with the connection that it needs."""
_PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Limits:
    """What a session's answers must keep to. Who uses the session may change them between requests."""

    stall_seconds: float
    most_bytes: int = 0
    """Of an object that is asked for as a whole. One that is asked for by range has as many as the range."""


class LongAnswerError(OSError):
    """An answer that is longer than what was asked for."""


class RedirectedError(OSError):
    """A store that sends its readers elsewhere: into this machine's network, if need be."""


class _Body:
    """aiohttp's stream of a body, at a pace and with a limit."""

    def __init__(self, stream: Any, stall_seconds: float, most: int, is_message: bool) -> None:
        self._stream, self._pace, self._left, self._most = stream, Pace(stall_seconds), most, most
        self._is_message = is_message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, size: int = -1) -> bytes:
        """All that is left, or up to `size` bytes. Raises StalledError, LongAnswerError, or ResponseParserError."""
        if size >= 0:
            return await self._piece(self._stream.read(size))
        pieces = []
        while piece := await self._piece(self._stream.read(_PIECE_BYTES)):
            pieces.append(piece)
        return b"".join(pieces)

    async def _piece(self, reading: Awaitable[bytes]) -> bytes:
        begin = time.monotonic()
        piece = await reading
        if piece:
            self._pace.add(len(piece), time.monotonic() - begin)
            self._left -= len(piece)
        if self._left < 0 and self._is_message:
            raise ResponseParserError(f"more than {self._most >> 20} MiB, where a message is expected")
        if self._left < 0:
            raise LongAnswerError(f"the store sends more than the {self._most:,} bytes that were asked for")
        return piece


class PacedSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP session, with such bodies. It is made by aiobotocore, which takes a class: `paced_session`."""

    limits: Limits

    async def _get_session(self, proxy_url: Any) -> Any:
        session = await super()._get_session(proxy_url)
        if not session.trace_configs:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            trace.freeze()
            session.trace_configs.append(trace)
        return session

    async def send(self, request: Any) -> Any:
        """Send a request. Raises StalledError if the head of the answer doesn't come in time."""
        seconds = self.limits.stall_seconds * _HEADS_SECONDS
        whole, request.stream_output = not request.stream_output, True  # else it would be read without a limit
        try:
            answer = await asyncio.wait_for(super().send(request), seconds)
        except TimeoutError as fault:
            raise StalledError(f"no answer's head arrived in {seconds:.0f} s") from fault
        is_message = answer.status_code >= 300 or "list-type=2" in urlsplit(request.url).query
        most = MOST_MESSAGE_BYTES if is_message else self._most_bytes(request)
        answer.raw.content = _Body(answer.raw.content, self.limits.stall_seconds, most, is_message)
        if whole:
            await answer.content
        return answer

    def _most_bytes(self, request: Any) -> int:
        """The most that an object, or a part of it, may have that is asked for."""
        wanted = request.headers.get("Range", "")
        found = _RANGE.fullmatch(wanted.decode() if isinstance(wanted, bytes) else wanted)
        return int(found[2]) - int(found[1]) + 1 if found else self.limits.most_bytes


async def _refuse_redirect(_session: Any, _context: Any, redirect: Any) -> None:
    where = str(redirect.response.headers.get("Location", ""))[:200]
    raise RedirectedError(f"the store redirects to {where!a}, which isn't followed")


class AioParsers(AioResponseParserFactory):  # type: ignore[misc]
    """Makes parsers that raise ResponseParserError for whatever they can't parse: `larder.s3_session.Parsers`."""

    def create_parser(self, protocol_name: str) -> Any:
        """Return a parser for a protocol."""
        parser = super().create_parser(protocol_name)
        parse = parser.parse

        async def guarded(response: Any, shape: Any) -> Any:
            try:
                return with_error(await parse(response, shape))
            except SENSELESS as fault:
                raise ResponseParserError(f"{type(fault).__name__}: {fault}") from fault

        parser.parse = guarded
        return parser


def paced_session(limits: Limits) -> type[PacedSession]:
    """The class of sessions with these limits."""
    return type("PacedSession", (PacedSession,), {"limits": limits})
