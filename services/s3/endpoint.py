"""Get an endpoint's first response: it shows whether the endpoint answers, its protocol, and its clock."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from botocore.handlers import disable_signing

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import StageRun
from larder.s3_faults import S3_ERRORS, clock_skew_seconds, explain_s3_error
from larder.store import make_client
from larder.tls_faults import speaks_tls
from services.s3.settings import S3Settings

_LOCAL_STORE = "minio"
"""The host name of compose/s3.yaml's server in its network."""
_GATEWAY = frozenset({502, 503, 504})


class EndpointResponse(NamedTuple):
    """An endpoint's response to a request without keys."""

    seconds: float
    """Time from connecting to the complete response."""
    server: str
    skew_seconds: float | None
    """How far this machine's clock is ahead; None if the response has no date."""


def request_endpoint(settings: S3Settings) -> EndpointResponse:
    """Send a request without keys, which every store answers or refuses.

    Raises ConfigurationError if the address is wrong, ServiceError if nothing answers or a server error comes back.
    """
    store = make_client(settings)
    store.meta.events.register("choose-signer.s3.*", disable_signing)
    what, endpoint = "reaching the store", settings.s3_endpoint_url
    begin = time.perf_counter()
    try:
        response: Any = store.list_buckets()
    except ClientError as fault:
        response = fault.response
        _require_s3_response(fault, what, endpoint)
    except S3_ERRORS as fault:
        raise _diagnose_connection(explain_s3_error(fault, what, endpoint), what, endpoint) from fault
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    return EndpointResponse(time.perf_counter() - begin, headers.get("server", ""), clock_skew_seconds(headers))


def _require_s3_response(fault: ClientError, what: str, endpoint: str) -> None:
    """Raise an error unless an S3 store sent the response: S3 refusals have a code in XML, or x-amz- headers."""
    metadata = fault.response["ResponseMetadata"]
    status, code = metadata["HTTPStatusCode"], fault.response.get("Error", {}).get("Code", "")
    has_amz_headers = any(name.startswith("x-amz-") for name in metadata["HTTPHeaders"])
    if status in _GATEWAY or (status >= 500 and has_amz_headers):
        raise ServiceError(
            f"{what}: {endpoint or 'AWS'} answers {status}",
            next_step="it may be starting, or a proxy can't reach the store: look at its log, then check again",
        ) from fault
    # This includes web pages with status 200: botocore turns what it can't parse into 500.
    if not has_amz_headers and (code.isdecimal() or status >= 500):
        raise _not_a_store_error(fault, what, endpoint) from fault


def _not_a_store_error(fault: ClientError, what: str, endpoint: str) -> LarderError:
    error = explain_s3_error(fault, what, endpoint)
    if "TLS" in error.what:
        return error
    return ConfigurationError(
        f"{what}: {endpoint} answers, but not as an S3 store does",
        next_step="check S3_ENDPOINT_URL: it must be the S3 port, without a path",
    )


def _diagnose_connection(error: LarderError, what: str, endpoint: str) -> LarderError:
    """Return a more specific error, if a closer look at the connection finds one."""
    url = urlsplit(endpoint)
    if isinstance(error, ServiceError) and url.scheme == "http" and speaks_tls(url.hostname or "", url.port or 80):
        return ConfigurationError(
            f"{what}: {endpoint} speaks TLS, and the address says http://",
            next_step="write S3_ENDPOINT_URL with https://",
        )
    if url.hostname == _LOCAL_STORE and not _has_address(url.hostname):
        return ServiceError(
            f"{what}: the store on this machine is not running", next_step=f"run {StageRun('s3', 'up')}"
        )
    if url.hostname and not _has_address(url.hostname) and not _has_proxy():
        return ConfigurationError(
            f"{what}: the name {url.hostname} has no address", next_step="check the spelling of S3_ENDPOINT_URL"
        )
    return error


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _has_proxy() -> bool:
    return any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"))
