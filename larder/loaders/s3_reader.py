"""Read objects from S3 with s3fs, whole or as streams. Count requests, and retry transient failures.

Each process needs its own reader: s3fs runs an event loop in a thread, and threads don't survive a fork.
"""

from __future__ import annotations

import os
import time
from typing import Any

import aiohttp
import s3fs  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from larder.connections import StalledError, find_cause
from larder.errors import InputError, LarderError, ServiceError
from larder.loaders.hints import CREATE_AGAIN, LOAD_AGAIN, USE_FEWER_READERS
from larder.loaders.paced_session import AioParsers, OversizedResponseError, ResponseLimits, make_session_class
from larder.loaders.traffic import TrafficCounter
from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_s3_error, is_final
from larder.s3_session import ModelLoader
from larder.store import BucketSettings, region_of

ATTEMPTS = 6
"""Maximum number of attempts per object, including retries of interrupted bodies."""
FIRST_PAUSE_SECONDS = 0.2
"""Pause before the second attempt; it doubles with each further attempt."""
_CONNECT_SECONDS = 30

STREAM_ERRORS = (OSError, aiohttp.ClientError, *S3_ERRORS)
"""Exceptions that reading with s3fs may raise."""


class ObjectReader:
    """Reader of objects in one bucket."""

    def __init__(self, settings: BucketSettings, region: str, traffic: TrafficCounter) -> None:
        self._settings, self._traffic = settings, traffic
        self._body: Any = None
        self.opened_uri = ""
        """URI of the object opened last."""
        self._limits = ResponseLimits(settings.stall_seconds)
        session = AioSession()
        session.register_component("data_loader", ModelLoader(session.get_config_variable("data_path")))
        session.register_component("response_parser_factory", AioParsers())
        session.register("before-send.s3", self._on_request)
        session.register("before-parse.s3", self._on_response)
        self._files = s3fs.S3FileSystem(
            anon=settings.unsigned,
            requester_pays=settings.requester_pays,
            key=settings.aws_access_key_id or None,
            secret=settings.aws_secret_access_key.get_secret_value() or None,
            token=settings.aws_session_token.get_secret_value() or None,
            endpoint_url=settings.s3_endpoint_url or None,
            client_kwargs={"region_name": region},
            config_kwargs={
                "s3": {"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
                "retries": {"mode": "standard", "total_max_attempts": 1},  # `read` retries, bodies included
                "connect_timeout": min(_CONNECT_SECONDS, settings.stall_seconds),
                "read_timeout": settings.stall_seconds,
                "http_session_cls": make_session_class(self._limits),
            },
            max_concurrency=1,  # with more, s3fs requests each object's length first
            session=session,
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        self._files.retries = 1

    def read(self, key: str, max_bytes: int) -> bytes:
        """Return the content of an object.

        Raises:
            InputError: If the object is missing or longer than `max_bytes` bytes.
            ConfigurationError: If the store refuses access.
            ServiceError: If the store doesn't answer after all attempts.
        """
        pause, self._limits.max_object_bytes = FIRST_PAUSE_SECONDS, max_bytes
        for attempt in range(1, ATTEMPTS + 1):
            try:
                content: bytes = self._files.cat_file(f"{self._settings.bucket}/{key}")
                return content
            except STREAM_ERRORS as fault:
                error = self._explain(fault, f"s3://{self._settings.bucket}/{key}")
                if attempt == ATTEMPTS or not isinstance(error, ServiceError):
                    raise error from fault
            finally:
                self._count_body()
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def open(self, key: str) -> Any:
        """Open an object as a file that s3fs fetches in blocks. Pass what reading raises to `explain`."""
        self.opened_uri = f"s3://{self._settings.bucket}/{key}"
        self._files.retries = ATTEMPTS  # s3fs retries each request
        self._limits.max_object_bytes = 0  # all requests are for ranges
        try:
            return self._files.open(f"{self._settings.bucket}/{key}", "rb")
        except KeyError as field:  # s3fs takes these headers for granted
            raise HTTPClientError(error=f"the answer has no {field.args[0]}") from None

    def count_last_body(self) -> None:
        """Count the last response body. Call it at the end of a pass."""
        self._count_body()

    def _on_request(self, **_: Any) -> None:
        self._traffic.add(requests=1)

    def _on_response(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._count_body()  # the previous block's
        body = response_dict["body"]
        if isinstance(body, bytes):  # an error response, already read
            self._traffic.add(bytes=len(body))
        else:
            self._body = body.raw_stream

    def _count_body(self) -> None:
        """Count the bytes received of the last body, even if it was interrupted."""
        if self._body is not None:
            self._traffic.add(bytes=self._body.content.total_bytes)
            self._body = None

    def explain(self, fault: Exception) -> LarderError:
        """Return our error for an exception raised while reading the object opened last."""
        return self._explain(fault, self.opened_uri)

    def _explain(self, fault: Exception, uri: str) -> LarderError:
        # s3fs turns store errors into Python's OSErrors and keeps the original as the cause.
        cause = fault.__cause__ if isinstance(fault.__cause__, ClientError) else fault
        if isinstance(cause, OversizedResponseError):
            return InputError(f"{uri} is longer than its index says: {cause}", next_step=CREATE_AGAIN)
        if not isinstance(cause, (ClientError, FileNotFoundError)):
            broken = cause if isinstance(cause, S3_ERRORS) else HTTPClientError(error=cause)
            return explain_s3_error(broken, f"reading {uri}", self._settings.s3_endpoint_url)
        if isinstance(cause, FileNotFoundError) or code_of(cause) in ABSENT_CODES:
            return InputError(f"{uri} is missing: it was deleted after the load", next_step=LOAD_AGAIN)
        error = explain_s3_error(cause, f"reading {uri}", self._settings.s3_endpoint_url)
        if isinstance(error, ServiceError):
            return ServiceError(f"{error.what}, {ATTEMPTS} times in a row", next_step=USE_FEWER_READERS)
        return error


def _is_transient(fault: Exception) -> bool:
    """Return whether s3fs should retry. By itself it recognizes only some transient faults."""
    if isinstance(fault, EndpointConnectionError):  # includes a connection reset before any response
        return True
    if find_cause(fault, StalledError) is not None:
        return True
    return isinstance(fault, ClientError) and code_of(fault) not in ABSENT_CODES and not is_final(code_of(fault))


s3fs.core.set_custom_error_handler(_is_transient)


class ProcessReaders:
    """One reader per process, created on first use.

    A forked process neither uses nor closes its parent's reader: both would wait for a thread that doesn't exist there.
    """

    def __init__(self, settings: BucketSettings, traffic: TrafficCounter) -> None:
        self._settings, self._region, self._traffic = settings, region_of(settings), traffic
        self._by_process: dict[int, ObjectReader] = {}

    def get(self) -> ObjectReader:
        """Return this process's reader."""
        reader = self._by_process.get(os.getpid())
        if reader is None:
            reader = self._by_process[os.getpid()] = ObjectReader(self._settings, self._region, self._traffic)
        return reader
