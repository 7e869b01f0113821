"""Guard boto3 against faulty stores: limit stalls and response sizes, and turn parser crashes into errors."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.loaders import JSONFileLoader, Loader
from botocore.parsers import ResponseParser, ResponseParserError, ResponseParserFactory
from urllib3.exceptions import HTTPError

from larder.connections import pace_pool

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_RESPONSE_BYTES = 16 << 20
"""Maximum size of a response that is read into memory. A full page of a listing with the longest keys has some 7 MB."""
_PIECE_BYTES = 1 << 20


class ModelFiles(JSONFileLoader):  # type: ignore[misc,unused-ignore]
    """botocore's service models, each read once. Reading them is most of the time that creating a client takes."""

    @cache  # noqa: B019  (there is one object)
    def load_file(self, file_path: str) -> Any:
        """Return a file's content, or None if it doesn't exist; the path has no ending."""
        return super().load_file(file_path)


class ModelLoader(Loader):  # type: ignore[misc,unused-ignore]
    """botocore's loader of models, which looks through the folders of all of AWS's services once in a process."""

    _MODEL_FILES = ModelFiles()
    _SERVICES: ClassVar[dict[tuple[str, ...], list[str]]] = {}

    def __init__(self, data_path: str | None) -> None:
        folders = data_path.split(os.pathsep) if data_path else []
        super().__init__([os.path.expanduser(os.path.expandvars(folder)) for folder in folders], self._MODEL_FILES)

    def list_available_services(self, type_name: str) -> list[str]:
        """Return the services that have a model of this type."""
        key = (type_name, *self.search_paths)
        if key not in self._SERVICES:
            self._SERVICES[key] = super().list_available_services(type_name)
        return self._SERVICES[key]


class BoundedResponse(AWSResponse):
    """A response with at most `MAX_RESPONSE_BYTES` of content. An object's body stays a stream and isn't limited."""

    @property
    def content(self) -> bytes:
        """The whole content. Raises ResponseParserError if it is too large."""
        untyped: Any = self
        if untyped._content is None:
            untyped._content = self._read()
        return untyped._content  # type: ignore[no-any-return]

    def _read(self) -> bytes:
        pieces, left = [], MAX_RESPONSE_BYTES
        while piece := self.raw.read(min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                self.raw.close()
                raise ResponseParserError(
                    f"more than {MAX_RESPONSE_BYTES >> 20} MiB, where a list or a message is expected"
                )
            pieces.append(piece)
        return b"".join(pieces)


_REDIRECTS, _REGION = (301, 302, 307), "x-amz-bucket-region"


class BoundedSession:
    """botocore's HTTP session with a minimum transfer rate and limited responses."""

    def __init__(self, session: URLLib3Session, stall_seconds: float) -> None:
        untyped: Any = session
        classes = {scheme: pace_pool(pool, stall_seconds) for scheme, pool in untyped._pool_classes_by_scheme.items()}
        untyped._pool_classes_by_scheme = untyped._manager.pool_classes_by_scheme = classes
        self._session = untyped

    def send(self, request: Any) -> BoundedResponse:
        """Send a request, and read the response's content unless it is a stream."""
        is_stream, request.stream_output = request.stream_output, True  # else botocore would read without a limit
        raw_response = self._session.send(request)
        # botocore's body checks its length, but `with body` is urllib3's, which would take a broken connection for the
        # end of the object.
        raw_response.raw.enforce_content_length = True
        response = BoundedResponse(raw_response.url, raw_response.status_code, raw_response.headers, raw_response.raw)
        if request.method == "HEAD" and response.status_code in _REDIRECTS and _REGION not in response.headers:
            # botocore would ask for the bucket's region by HEAD, and so on until Python's stack is full.
            raise HTTPClientError(error=f"the store redirects ({response.status_code}) without naming a region")
        if not is_stream:
            try:
                response.content  # noqa: B018  (reads it)
            except (HTTPError, OSError) as fault:
                raise ConnectionClosedError(endpoint_url=request.url, error=fault) from fault
        return response

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


def bound_client(client: S3Client, stall_seconds: float) -> None:
    """Make a client use a `BoundedSession`."""
    endpoint: Any = client._endpoint  # type: ignore[attr-defined]  # botocore has no other way to get at it
    endpoint.http_session = BoundedSession(endpoint.http_session, stall_seconds)


def with_error(parsed: Any) -> Any:
    """Replace a missing error in a parsed response by an empty one, since botocore accesses its fields."""
    if parsed.get("Error", parsed) is None:
        parsed["Error"] = {}
    return parsed


PARSER_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)
"""Exceptions that botocore's parsers raise for malformed responses."""


class Parsers(ResponseParserFactory):
    """Create parsers that raise ResponseParserError for every malformed response, such as one with an invalid size."""

    def create_parser(self, protocol_name: str) -> ResponseParser:
        """Return a parser for a protocol."""
        parser: Any = super().create_parser(protocol_name)
        parse = parser.parse

        def parse_checked(response: Any, shape: Any) -> Any:
            try:
                return with_error(parse(response, shape))
            except PARSER_ERRORS as fault:
                raise ResponseParserError(f"{type(fault).__name__}: {fault}") from fault

        parser.parse = parse_checked
        return parser  # type: ignore[no-any-return]
