"""Reads objects from S3 with s3fs, whole or as streams; requests are counted, and repeated when they fail in passing.

A reader belongs to the process that made it, since s3fs runs an event loop in a thread, and no thread survives a fork.
"""

from __future__ import annotations

import os
import time
from typing import Any

import aiohttp
import s3fs  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from larder.connections import StalledError, cause_of
from larder.errors import InputError, LarderError, ServiceError
from larder.loaders.paced_session import AioParsers, Limits, LongAnswerError, paced_session
from larder.loaders.remedies import FEWER_READERS, GONE, RENEW
from larder.loaders.traffic import Traffic
from larder.s3_faults import ABSENT, FAULTS, code_of, explain, is_final
from larder.store import BucketSettings, region_of

ATTEMPTS = 6
"""Tries of one object, repeats of what broke off included."""
FIRST_PAUSE_SECONDS = 0.2
"""Before the second try; each further one is twice as long."""
_CONNECT_SECONDS = 30

FAULTS_OF_STREAMS = (OSError, aiohttp.ClientError, *FAULTS)
"""What reading from s3fs may raise."""


class Reader:
    """Gives the content of objects in one bucket."""

    def __init__(self, settings: BucketSettings, region: str, traffic: Traffic) -> None:
        self._settings, self._traffic = settings, traffic
        self._body: Any = None
        self.opened = ""
        """The URI of the object that was opened last."""
        self._limits = Limits(settings.stall_seconds)
        session = AioSession()
        session.register_component("response_parser_factory", AioParsers())
        session.register("before-send.s3", self._on_request)
        session.register("before-parse.s3", self._on_answer)
        self._files = s3fs.S3FileSystem(
            anon=settings.unsigned, requester_pays=settings.requester_pays,
            key=settings.aws_access_key_id or None,
            secret=settings.aws_secret_access_key.get_secret_value() or None,
            token=settings.aws_session_token.get_secret_value() or None,
            endpoint_url=settings.s3_endpoint_url or None,
            client_kwargs={"region_name": region},
            config_kwargs={
                "s3": {"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
                "request_checksum_calculation": "when_required", "response_checksum_validation": "when_required",
                "retries": {"mode": "standard", "total_max_attempts": 1},  # `read` repeats: it sees the body, too
                "connect_timeout": min(_CONNECT_SECONDS, settings.stall_seconds),
                "read_timeout": settings.stall_seconds, "http_session_cls": paced_session(self._limits),
            },
            max_concurrency=1,  # with more, s3fs asks for each object's length first
            session=session, skip_instance_cache=True, use_listings_cache=False,
        )  # fmt: skip
        self._files.retries = 1

    def read(self, key: str, most: int) -> bytes:
        """The content of an object. Raises InputError when it isn't there or is longer than `most` bytes,
        ConfigurationError or ServiceError.
        """
        pause, self._limits.most_bytes = FIRST_PAUSE_SECONDS, most
        for attempt in range(1, ATTEMPTS + 1):
            try:
                content: bytes = self._files.cat_file(f"{self._settings.bucket}/{key}")
                return content
            except FAULTS_OF_STREAMS as fault:
                error = self._explain(fault, f"s3://{self._settings.bucket}/{key}")
                if attempt == ATTEMPTS or not isinstance(error, ServiceError):
                    raise error from fault
            finally:
                self._count_body()
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def open(self, key: str) -> Any:
        """An object as s3fs's file, fetched in blocks as it is read. What reading it raises, `explain` explains."""
        self.opened = f"s3://{self._settings.bucket}/{key}"
        self._files.retries = ATTEMPTS  # of each request, by s3fs itself
        self._limits.most_bytes = 0  # all are for ranges
        return self._files.open(f"{self._settings.bucket}/{key}", "rb")

    def settle(self) -> None:
        """Count what came last: call it when a pass is over."""
        self._count_body()

    def _on_request(self, **_: Any) -> None:
        self._traffic.add(requests=1)

    def _on_answer(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._count_body()  # of the block before
        body = response_dict["body"]
        if isinstance(body, bytes):  # an error's, which is here already
            self._traffic.add(bytes=len(body))
        else:
            self._body = body.raw_stream

    def _count_body(self) -> None:
        """Count what came of the last body: of one that broke off, too."""
        if self._body is not None:
            self._traffic.add(bytes=self._body.content.total_bytes)
            self._body = None

    def explain(self, fault: Exception) -> LarderError:
        """The error for what the object that was opened last has raised."""
        return self._explain(fault, self.opened)

    def _explain(self, fault: Exception, uri: str) -> LarderError:
        # s3fs makes Python's errors of a store's answers and keeps those as the cause.
        cause = fault.__cause__ if isinstance(fault.__cause__, ClientError) else fault
        if isinstance(cause, LongAnswerError):
            return InputError(f"{uri} is longer than its index says: {cause}", next_step=RENEW)
        if not isinstance(cause, (ClientError, FileNotFoundError)):
            broken = cause if isinstance(cause, FAULTS) else HTTPClientError(error=cause)
            return explain(broken, f"reading {uri}", self._settings.s3_endpoint_url)
        if isinstance(cause, FileNotFoundError) or code_of(cause) in ABSENT:
            return InputError(f"{uri} is gone: it was deleted after the load", next_step=GONE)
        error = explain(cause, f"reading {uri}", self._settings.s3_endpoint_url)
        if isinstance(error, ServiceError):
            return ServiceError(f"{error.what}, {ATTEMPTS} times in a row", next_step=FEWER_READERS)
        return error


def _passes(fault: Exception) -> bool:
    """Whether s3fs should ask again: it knows some faults by itself, by no means all."""
    if isinstance(fault, EndpointConnectionError):  # among others, a connection that is reset before any answer
        return True
    if cause_of(fault, StalledError) is not None:
        return True
    return isinstance(fault, ClientError) and code_of(fault) not in ABSENT and not is_final(code_of(fault))


s3fs.core.set_custom_error_handler(_passes)


class Readers:
    """A reader for each process that reads, made when it first does.

    A fork's copy of its parent's is neither used nor closed, both of which would wait for a thread that isn't there.
    """

    def __init__(self, settings: BucketSettings, traffic: Traffic) -> None:
        self._settings, self._region, self._traffic = settings, region_of(settings), traffic
        self._by_process: dict[int, Reader] = {}

    def own(self) -> Reader:
        """This process's."""
        reader = self._by_process.get(os.getpid())
        if reader is None:
            reader = self._by_process[os.getpid()] = Reader(self._settings, self._region, self._traffic)
        return reader
