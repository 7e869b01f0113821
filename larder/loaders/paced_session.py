"""HTTP session for s3fs that enforces progress and a maximum length of each response.

aiohttp waits as long as single bytes arrive, and reads a whole response into memory. `larder.s3_session` enforces the
same for boto3.
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
from larder.s3_session import MAX_RESPONSE_BYTES, PARSER_ERRORS, with_error

_HEADERS_STALL_FACTOR = 2
"""Time limit for connecting and receiving response headers, in multiples of `stall_seconds`."""
_PIECE_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class ResponseLimits:
    """Limits on a session's responses. They may be changed between requests."""

    stall_seconds: float
    max_object_bytes: int = 0
    """Maximum length of an object that is requested whole. A range request is limited by its range."""


class OversizedResponseError(OSError):
    """The response is longer than requested."""


class RedirectedError(OSError):
    """The store redirected the request, which could lead into this machine's network."""


class _LimitedBody:
    """aiohttp's stream of a response body, with a minimum pace and a maximum length."""

    def __init__(self, stream: Any, stall_seconds: float, max_bytes: int, is_message: bool) -> None:
        self._stream, self._pace, self._left, self._max_bytes = stream, Pace(stall_seconds), max_bytes, max_bytes
        self._is_message = is_message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all. Raise StalledError, OversizedResponseError or ResponseParserError."""
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
            raise ResponseParserError(f"more than {self._max_bytes >> 20} MiB, where a message is expected")
        if self._left < 0:
            raise OversizedResponseError(f"the store sends more than the {self._max_bytes:,} bytes that were requested")
        return piece


class PacedSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP session with limits. aiobotocore expects a class: use `make_session_class` to make one."""

    limits: ResponseLimits

    async def _get_session(self, proxy_url: Any) -> Any:
        session = await super()._get_session(proxy_url)
        if not session.trace_configs:
            trace = aiohttp.TraceConfig()
            trace.on_request_redirect.append(_refuse_redirect)
            trace.freeze()
            session.trace_configs.append(trace)
        return session

    async def send(self, request: Any) -> Any:
        """Send a request. Raise StalledError if the response headers don't arrive in time."""
        seconds = self.limits.stall_seconds * _HEADERS_STALL_FACTOR
        reads_whole_body, request.stream_output = not request.stream_output, True  # False would read it without a limit
        try:
            response = await asyncio.wait_for(super().send(request), seconds)
        except TimeoutError as fault:
            raise StalledError(f"no response headers arrived in {seconds:.0f} s") from fault
        is_message = response.status_code >= 300 or "list-type=2" in urlsplit(request.url).query
        max_bytes = MAX_RESPONSE_BYTES if is_message else self._max_response_bytes(request)
        response.raw.content = _LimitedBody(response.raw.content, self.limits.stall_seconds, max_bytes, is_message)
        if reads_whole_body:
            await response.content
        return response

    def _max_response_bytes(self, request: Any) -> int:
        """Return the maximum length of the requested object or range."""
        range_header = request.headers.get("Range", "")
        match = _RANGE.fullmatch(range_header.decode() if isinstance(range_header, bytes) else range_header)
        return int(match[2]) - int(match[1]) + 1 if match else self.limits.max_object_bytes


async def _refuse_redirect(_session: Any, _context: Any, redirect: Any) -> None:
    where = str(redirect.response.headers.get("Location", ""))[:200]
    raise RedirectedError(f"the store redirects to {where!a}, which isn't followed")


class AioParsers(AioResponseParserFactory):  # type: ignore[misc]
    """Create parsers that raise ResponseParserError for any invalid response, as `larder.s3_session.Parsers` does."""

    def create_parser(self, protocol_name: str) -> Any:
        """Return a parser for a protocol."""
        parser = super().create_parser(protocol_name)
        parse = parser.parse

        async def parse_checked(response: Any, shape: Any) -> Any:
            try:
                return with_error(await parse(response, shape))
            except PARSER_ERRORS as fault:
                raise ResponseParserError(f"{type(fault).__name__}: {fault}") from fault

        parser.parse = parse_checked
        return parser


def make_session_class(limits: ResponseLimits) -> type[PacedSession]:
    """Return a session class with these limits."""
    return type("PacedSession", (PacedSession,), {"limits": limits})
