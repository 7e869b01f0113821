"""The first answer of an endpoint: whether something answers, in which tongue, and when."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from botocore.handlers import disable_signing

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import Run
from larder.s3_faults import FAULTS, clock_skew_seconds, explain
from larder.store import client
from larder.tls_faults import speaks_tls
from services.s3.settings import S3Settings

_LOCAL_STORE = "minio"
"""The name of the server of compose/s3.yaml for other containers."""
_GATEWAY = frozenset({502, 503, 504})


class Answer(NamedTuple):
    """How an endpoint answered a request without keys."""

    seconds: float
    """From connecting to having the answer."""
    server: str
    skew_seconds: float | None
    """How far this machine's clock is ahead; None where the answer has no date."""


def first_answer(settings: S3Settings) -> Answer:
    """Ask an endpoint something without keys, which every store answers or refuses.

    Raises ConfigurationError when the address is wrong, ServiceError when nothing answers, or with a server error.
    """
    store = client(settings)
    store.meta.events.register("choose-signer.s3.*", disable_signing)
    what, endpoint = "reaching the store", settings.s3_endpoint_url
    begin = time.perf_counter()
    try:
        answer: Any = store.list_buckets()
    except ClientError as fault:
        answer = fault.response
        _refuse_strangers(fault, what, endpoint)
    except FAULTS as fault:
        raise _closer(explain(fault, what, endpoint), what, endpoint) from fault
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return Answer(time.perf_counter() - begin, headers.get("server", ""), clock_skew_seconds(headers))


def _refuse_strangers(fault: ClientError, what: str, endpoint: str) -> None:
    """Raise for an answer that is no store's. Stores refuse in XML with a code in words, or number their answers."""
    metadata = fault.response["ResponseMetadata"]
    status, code = metadata["HTTPStatusCode"], fault.response.get("Error", {}).get("Code", "")
    numbered = any(name.startswith("x-amz-") for name in metadata["HTTPHeaders"])
    if status in _GATEWAY or (status >= 500 and numbered):
        raise ServiceError(
            f"{what}: {endpoint or 'AWS'} answers {status}",
            next_step="it may be starting, or a proxy finds no store behind it: look at its log, then check again",
        ) from fault
    # A page with 200 is among them: botocore makes 500 of what it can't read.
    if not numbered and (code.isdecimal() or status >= 500):
        raise _not_a_store(fault, what, endpoint) from fault


def _not_a_store(fault: ClientError, what: str, endpoint: str) -> LarderError:
    explained = explain(fault, what, endpoint)
    if "TLS" in explained.what:
        return explained
    return ConfigurationError(
        f"{what}: {endpoint} answers, but not as an S3 store does",
        next_step="check S3_ENDPOINT_URL: it must be the S3 port, without a path",
    )


def _closer(error: LarderError, what: str, endpoint: str) -> LarderError:
    """A better error, where a closer look at the connection finds one."""
    url = urlsplit(endpoint)
    if isinstance(error, ServiceError) and url.scheme == "http" and speaks_tls(url.hostname or "", url.port or 80):
        return ConfigurationError(
            f"{what}: {endpoint} speaks TLS, and the address says http://",
            next_step="write S3_ENDPOINT_URL with https://",
        )
    if url.hostname == _LOCAL_STORE and not _has_address(url.hostname):
        return ServiceError(f"{what}: the store on this machine is not running", next_step=f"run {Run('s3', 'up')}")
    if url.hostname and not _has_address(url.hostname) and not _proxied():
        return ConfigurationError(
            f"{what}: the name {url.hostname} has no address", next_step="check the spelling of S3_ENDPOINT_URL"
        )
    return error


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _proxied() -> bool:
    return any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"))
