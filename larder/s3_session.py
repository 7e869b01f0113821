"""What stands between boto3 and a store: connections that make progress, bounded answers, parsers that don't crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParser, ResponseParserError, ResponseParserFactory
from urllib3.exceptions import HTTPError

from larder.connections import paced

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_BYTES = 16 << 20
"""Of an answer that is read into memory. A full page of a listing with the longest keys has some 7 MB."""
_PIECE_BYTES = 1 << 20


class BoundedAnswer(AWSResponse):
    """An answer whose content has at most `MOST_BYTES`. An object's body isn't read here: it stays a stream."""

    @property
    def content(self) -> bytes:
        """The whole content. Raises ResponseParserError if it is too long."""
        ours: Any = self
        if ours._content is None:
            ours._content = self._read()
        return ours._content  # type: ignore[no-any-return]

    def _read(self) -> bytes:
        pieces, left = [], MOST_BYTES
        while piece := self.raw.read(min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                self.raw.close()
                raise ResponseParserError(f"more than {MOST_BYTES >> 20} MiB, where a list or a message is expected")
            pieces.append(piece)
        return b"".join(pieces)


class BoundedSession:
    """botocore's HTTP session, with answers of ours."""

    def __init__(self, session: URLLib3Session, stall_seconds: float) -> None:
        ours: Any = session
        classes = {scheme: paced(pool, stall_seconds) for scheme, pool in ours._pool_classes_by_scheme.items()}
        ours._pool_classes_by_scheme = ours._manager.pool_classes_by_scheme = classes
        self._session = ours

    def send(self, request: Any) -> BoundedAnswer:
        """Send a request. The content of an answer that is no stream is read."""
        is_stream, request.stream_output = request.stream_output, True  # else it would be read without a limit
        found = self._session.send(request)
        answer = BoundedAnswer(found.url, found.status_code, found.headers, found.raw)
        if not is_stream:
            try:
                answer.content  # noqa: B018  (reads it)
            except (HTTPError, OSError) as fault:
                raise ConnectionClosedError(endpoint_url=request.url, error=fault) from fault
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


def bound(client: S3Client, stall_seconds: float) -> None:
    """Make a client use a `BoundedSession`."""
    endpoint: Any = client._endpoint  # type: ignore[attr-defined]  # botocore has no other way to get at it
    endpoint.http_session = BoundedSession(endpoint.http_session, stall_seconds)


def with_error(parsed: Any) -> Any:
    """Give an answer that says of its error nothing an empty one: botocore looks into it."""
    if parsed.get("Error", parsed) is None:
        parsed["Error"] = {}
    return parsed


SENSELESS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)
"""What botocore's parsers raise on answers that no store sends."""


class Parsers(ResponseParserFactory):
    """Makes parsers that raise ResponseParserError for whatever they can't parse, such as a size that is no number."""

    def create_parser(self, protocol_name: str) -> ResponseParser:
        """Return a parser for a protocol."""
        parser: Any = super().create_parser(protocol_name)
        parse = parser.parse

        def guarded(response: Any, shape: Any) -> Any:
            try:
                return with_error(parse(response, shape))
            except SENSELESS as fault:
                raise ResponseParserError(f"{type(fault).__name__}: {fault}") from fault

        parser.parse = guarded
        return parser  # type: ignore[no-any-return]
