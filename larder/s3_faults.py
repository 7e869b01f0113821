"""Translate the error codes of S3 stores and botocore's exceptions into larder's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as BodyTimeoutError

from larder import tls_faults
from larder.connections import StalledError, find_cause
from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import StageRun

S3_ERRORS = (ClientError, BotoCoreError, ResponseParserError, HTTPError)
"""Errors that boto3 may raise in calls and while response bodies are read."""

NO_CONTACT = (EndpointConnectionError, ConnectTimeoutError, SSLError)
"""Errors raised before the store has sent any response."""

_CHECK_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to S3_ENDPOINT_URL"
_SLOW = "check the network and the store, or raise LARDER_STALL_SECONDS; then run again: it resumes"
_AGAIN = f"run the same command again; {StageRun('s3', 'check')} diagnoses the store"


class _Explanation(NamedTuple):
    kind: type[LarderError]
    cause: str
    next_step: str


# Codes as AWS, Ceph RGW, MinIO and SeaweedFS spell them
# (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and each project's source).
_BY_CODE = {
    "InvalidAccessKeyId": _Explanation(ConfigurationError, "the store doesn't know the access key", _CHECK_KEYS),
    "SignatureDoesNotMatch": _Explanation(
        ConfigurationError, "the secret key is wrong: the store can't verify the signature", _CHECK_KEYS
    ),
    "RequestTimeTooSkewed": _Explanation(
        ConfigurationError,
        "this machine's clock and the store's differ too much for the store to accept a signature",
        "set the clock (`timedatectl set-ntp true`), then run again",
    ),
    "ExpiredToken": _Explanation(
        ConfigurationError, "the temporary keys have expired", "get new ones and set AWS_SESSION_TOKEN, too"
    ),
    "InvalidToken": _Explanation(
        ConfigurationError, "the store refuses AWS_SESSION_TOKEN", "unset it, or get new temporary keys"
    ),
    "AccessDenied": _Explanation(
        ConfigurationError,
        "access is denied: these keys have no right to it, or the bucket belongs to somebody else",
        "check S3_BUCKET, or ask the bucket's owner to allow these keys to read, list, write and delete",
    ),
    "NoSuchBucket": _Explanation(
        ConfigurationError,
        "there is no such bucket",
        "check the name (S3_BUCKET, LARDER_SOURCE, LARDER_INPUT, LARDER_DEST), or run {make_bucket}",
    ),
    "InvalidBucketName": _Explanation(
        ConfigurationError,
        "the store rejects this bucket name",
        "give the bucket a name of 3 to 63 lower-case letters, digits and hyphens",
    ),
    "BucketAlreadyExists": _Explanation(
        ConfigurationError,
        "the bucket's name is taken: it belongs to somebody else",
        "choose another name for S3_BUCKET",
    ),
    "AuthorizationHeaderMalformed": _Explanation(
        ConfigurationError, "the store expects another region", "set AWS_REGION to the bucket's region"
    ),
    "PermanentRedirect": _Explanation(
        ConfigurationError, "the bucket lies in another region", "set AWS_REGION to the bucket's region"
    ),
    "IllegalLocationConstraintException": _Explanation(
        ConfigurationError, "the store creates no buckets in this region", "set AWS_REGION to a region that it serves"
    ),
    "XMinioStorageFull": _Explanation(
        ServiceError, "the store's disk is full", f"free space on the store, then {_AGAIN}"
    ),
    "QuotaExceeded": _Explanation(
        ServiceError, "the store's quota is used up", f"have the quota raised, then {_AGAIN}"
    ),
    "SlowDown": _Explanation(
        ServiceError,
        "the store asks to slow down",
        f"lower LARDER_TRANSFERS or LARDER_WORKERS, then {_AGAIN}",
    ),
}
_SYNONYMS = {
    "InvalidSecurity": "InvalidAccessKeyId",
    "SignatureDoesNotMatchException": "SignatureDoesNotMatch",
    "RequestExpired": "RequestTimeTooSkewed",
    "AllAccessDisabled": "AccessDenied",
    "Forbidden": "AccessDenied",
    "403": "AccessDenied",
    "MethodNotAllowed": "AccessDenied",
    "404": "NoSuchBucket",
    "301": "PermanentRedirect",
    "InsufficientStorage": "XMinioStorageFull",
    "507": "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded": "QuotaExceeded",
    "503": "SlowDown",
    "ServiceUnavailable": "SlowDown",
    "SlowDownRead": "SlowDown",
    "SlowDownWrite": "SlowDown",
    "TooManyRequests": "SlowDown",
    "InvalidLocationConstraint": "IllegalLocationConstraintException",
}
_TRANSIENT_CODES = {"SlowDown", *(name for name, same in _SYNONYMS.items() if same == "SlowDown")}
_NO_CONTACT_MESSAGES = ("connection refused", "no such host", "no route to host", "network is unreachable")
"""Messages of clients other than boto3 for a store that can't be reached."""

ABSENT_CODES = frozenset({"NoSuchKey", "404"})


def code_of(error: ClientError) -> str:
    """Return the store's error code, or the HTTP status if the response has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_final(code: str) -> bool:
    """Return whether a request that failed with this code would fail again."""
    fault = _BY_CODE.get(_SYNONYMS.get(code, code))
    return fault is not None and (fault.kind is ConfigurationError or code not in _TRANSIENT_CODES)


def explain_code(code: str, message: str, what: str) -> LarderError:
    """Return the error for an error code of a store.

    Args:
        code: The store's error code, or an HTTP status.
        message: The store's message.
        what: What was requested, as in "writing to s3://bucket/key".
    """
    if "no space left" in message:  # MinIO answers InternalError if the disk fills up during a request
        code = "XMinioStorageFull"
    fault = _BY_CODE.get(_SYNONYMS.get(code, code))
    if fault is None:
        return ServiceError(f"{what}: the store answers {code}: {message}".rstrip(": "), next_step=_AGAIN)
    bucket = re.search(r"s3://([^/:]+)", what)
    make_bucket = StageRun("s3", "bucket").with_settings(S3_BUCKET=bucket[1] if bucket else "")
    step = fault.next_step.replace("{make_bucket}", str(make_bucket))
    return fault.kind(f"{what}: {fault.cause} ({code})", next_step=step)


def explain_s3_error(error: Exception, what: str, endpoint: str, *, unsigned: bool = False) -> LarderError:
    """Return the error for an exception of boto3.

    Args:
        error: One of S3_ERRORS.
        what: What was requested, as in "writing to s3://bucket/key".
        endpoint: Address of the store; empty for AWS.
        unsigned: Whether the request wasn't signed, as for public buckets.
    """
    if isinstance(error, ClientError):
        code = code_of(error)
        if unsigned and _SYNONYMS.get(code, code) == "AccessDenied":
            return ConfigurationError(
                f"{what}: access is denied without keys ({code})",
                next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or check that the bucket is public",
            )
        return _explain_response(error, what, endpoint)
    if (fault := tls_faults.tls_fault_of(error)) or isinstance(error, SSLError):
        return _explain_tls(fault, str(error), what, endpoint)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return ConfigurationError(
            f"{what}: there are no credentials for {_name(endpoint)}",
            next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and S3_ENDPOINT_URL for a store other than "
            "AWS: .env.example has a block for each kind",
        )
    if isinstance(error, ResponseParserError):
        return _not_a_store_error(what, endpoint, _short(error))
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
        return _unreachable_error(what, endpoint)
    if isinstance(error, ProxyConnectionError):
        return ServiceError(
            f"{what}: the proxy doesn't answer: {_short(error)}",
            next_step="check HTTPS_PROXY and HTTP_PROXY, or name the store's host in NO_PROXY; then run again",
        )
    if stalled := find_cause(error, StalledError):
        return ServiceError(f"{what}: {_name(endpoint)} makes no progress: {stalled}", next_step=_SLOW)
    if isinstance(error, ConnectionClosedError) and tls_faults.speaks_tls_unasked(endpoint):
        return _explain_tls("speaks https", "", what, endpoint)
    if isinstance(error, (ReadTimeoutError, BodyTimeoutError)):
        return ServiceError(f"{what}: {_name(endpoint)} has stopped sending", next_step=_SLOW)
    if isinstance(error, (HTTPClientError, HTTPError)):
        return ServiceError(f"{what}: the connection to {_name(endpoint)} broke: {_short(error)}", next_step=_AGAIN)
    return ServiceError(f"{what}: {_short(error)}", next_step=_AGAIN)


def _explain_response(error: ClientError, what: str, endpoint: str) -> LarderError:
    code, message = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    if fault := tls_faults.find_tls_fault(message):
        return _explain_tls(fault, message, what, endpoint)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if code.isdecimal() and code < "500" and not any(name.startswith("x-amz-") for name in headers):
        return _not_a_store_error(what, endpoint)
    larder_error = explain_code(code, message, what)
    skew = clock_skew_seconds(headers)
    if _SYNONYMS.get(code, code) == "RequestTimeTooSkewed" and skew is not None:
        direction = "ahead of" if skew > 0 else "behind"
        larder_error = type(larder_error)(
            f"{larder_error.what}: it is {abs(skew) / 60:.0f} minutes {direction} the store's",
            next_step=larder_error.next_step,
        )
    return larder_error


def _not_a_store_error(what: str, endpoint: str, why: str = "") -> LarderError:
    return ConfigurationError(
        f"{what}: {_name(endpoint)} answers, but not as an S3 store does" + (f" ({why})" if why else ""),
        next_step="check S3_ENDPOINT_URL: it must be the S3 port, without a path",
    )


def clock_skew_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds this machine's clock is ahead of a response's `Date`, or None without a valid one."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _explain_tls(fault: tls_faults.TlsFault, text: str, what: str, endpoint: str) -> LarderError:
    """Return the error for a failed TLS connection. `text` is the client's message."""
    if fault == "speaks http":
        return ConfigurationError(
            f"{what}: {_name(endpoint)} doesn't speak TLS: it is a plain http port",
            next_step="write S3_ENDPOINT_URL with http://, or give the port that speaks TLS",
        )
    if fault == "speaks https":
        return ConfigurationError(
            f"{what}: {_name(endpoint)} speaks TLS, and the address says http://",
            next_step="write S3_ENDPOINT_URL with https://",
        )
    if fault == "certificate":
        return ConfigurationError(
            f"{what}: the certificate of {_name(endpoint)} can't be verified: {tls_faults.verify_fault(text)}",
            next_step="set AWS_CA_BUNDLE to a file with the certificate of the authority that signed it",
        )
    if fault == "bundle":
        return ConfigurationError(
            f"{what}: the file with certificates can't be read: {_short(text)}",
            next_step="correct AWS_CA_BUNDLE (or REQUESTS_CA_BUNDLE), or unset it",
        )
    return ServiceError(f"{what}: no TLS connection to {_name(endpoint)}: {_short(text)}", next_step=_AGAIN)


def explain_words(message: str, what: str, endpoint: str) -> LarderError:
    """Return the error for the message of another client than boto3, such as rclone.

    Args:
        message: The client's message.
        what: What was requested, as in "writing to s3://bucket/key".
        endpoint: Address of the store; empty for AWS.
    """
    if fault := tls_faults.find_tls_fault(message):
        return _explain_tls(fault, message, what, endpoint)
    if any(sign in message for sign in _NO_CONTACT_MESSAGES):
        return _unreachable_error(what, endpoint)
    return ServiceError(f"{what}: {_short(message)}", next_step=_AGAIN)


def _unreachable_error(what: str, endpoint: str) -> LarderError:
    hint = (
        f"start the store ({StageRun('s3', 'up')} for the local one), or check S3_ENDPOINT_URL, the network and "
        "the firewall; then run again: it resumes"
    )
    if urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1") and Path("/.dockerenv").exists():
        hint += "; inside a container, localhost is the container itself"
    if endpoint == "http://minio:9000" and not Path("/.dockerenv").exists():
        hint += "; outside of containers, the store of `s3-up` is at http://127.0.0.1:9000, or LARDER_MINIO_PORT"
    return ServiceError(f"{what}: {_name(endpoint)} doesn't answer", next_step=hint)


def _name(endpoint: str) -> str:
    return endpoint or "AWS"


def _short(error: Exception | str) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
