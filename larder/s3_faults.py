"""What an S3 store refuses or fails at, in words: its error codes and botocore's exceptions as our errors."""

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

from larder import tls_faults
from larder.connections import StalledError, cause_of
from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import Run

FAULTS = (ClientError, BotoCoreError, ResponseParserError, HTTPError)
"""What boto3's calls, and reading the bodies that they return, may raise."""

NO_CONTACT = (EndpointConnectionError, ConnectTimeoutError, SSLError)
"""Those where no answer of the store has been heard."""

_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to S3_ENDPOINT_URL"
_SLOW = "check the network and the store, or raise LARDER_STALL_SECONDS; then run again: what is done stays done"
_AGAIN = f"run the same command again; {Run('s3', 'check')} looks closer"


class _Fault(NamedTuple):
    kind: type[LarderError]
    cause: str
    next_step: str


# Codes as AWS, Ceph RGW, MinIO and SeaweedFS spell them
# (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and each project's source).
_BY_CODE = {
    "InvalidAccessKeyId": _Fault(ConfigurationError, "the store doesn't know the access key", _KEYS),
    "SignatureDoesNotMatch": _Fault(
        ConfigurationError, "the secret key is wrong: the store can't verify the signature", _KEYS
    ),
    "RequestTimeTooSkewed": _Fault(
        ConfigurationError, "this machine's clock and the store's differ too much for the store to accept a signature",
        "set the clock (`timedatectl set-ntp true`), then run again",
    ),
    "ExpiredToken": _Fault(
        ConfigurationError, "the temporary keys have expired", "get new ones and set AWS_SESSION_TOKEN, too"
    ),
    "InvalidToken": _Fault(
        ConfigurationError, "the store refuses AWS_SESSION_TOKEN", "unset it, or get new temporary keys"
    ),
    "AccessDenied": _Fault(
        ConfigurationError, "access is denied: these keys have no right to it, or the bucket belongs to another",
        "check S3_BUCKET, or ask the bucket's owner to allow these keys to read, list, write and delete",
    ),
    "NoSuchBucket": _Fault(
        ConfigurationError, "there is no such bucket",
        "check the name (S3_BUCKET, LARDER_INPUT, LARDER_DEST), or run {make_bucket}"
    ),
    "InvalidBucketName": _Fault(
        ConfigurationError, "the store takes no bucket of this name",
        "set S3_BUCKET to 3 to 63 lower-case letters, digits and hyphens",
    ),
    "BucketAlreadyExists": _Fault(
        ConfigurationError, "the bucket's name is taken: it belongs to another", "choose another name for S3_BUCKET"
    ),
    "AuthorizationHeaderMalformed": _Fault(
        ConfigurationError, "the store expects another region", "set AWS_REGION to the bucket's region"
    ),
    "PermanentRedirect": _Fault(
        ConfigurationError, "the bucket lies in another region", "set AWS_REGION to the bucket's region"
    ),
    "IllegalLocationConstraintException": _Fault(
        ConfigurationError, "the store makes no bucket in this region", "set AWS_REGION to a region that it serves"
    ),
    "XMinioStorageFull": _Fault(ServiceError, "the store's disk is full", f"free space on the store, then {_AGAIN}"),
    "QuotaExceeded": _Fault(ServiceError, "the store's quota is used up", f"have it raised, then {_AGAIN}"),
    "SlowDown": _Fault(
        ServiceError, "the store asks to slow down",
        f"ask for less at a time (LARDER_TRANSFERS, LARDER_WORKERS), and {_AGAIN}",
    ),
}  # fmt: skip
_SAME_AS = {
    "InvalidSecurity": "InvalidAccessKeyId", "SignatureDoesNotMatchException": "SignatureDoesNotMatch",
    "RequestExpired": "RequestTimeTooSkewed", "AllAccessDisabled": "AccessDenied", "Forbidden": "AccessDenied",
    "403": "AccessDenied", "MethodNotAllowed": "AccessDenied", "404": "NoSuchBucket",
    "301": "PermanentRedirect", "InsufficientStorage": "XMinioStorageFull", "507": "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded": "QuotaExceeded", "503": "SlowDown", "ServiceUnavailable": "SlowDown",
    "SlowDownRead": "SlowDown", "SlowDownWrite": "SlowDown", "TooManyRequests": "SlowDown",
    "InvalidLocationConstraint": "IllegalLocationConstraintException",
}  # fmt: skip

ABSENT = frozenset({"NoSuchKey", "404"})


def code_of(error: ClientError) -> str:
    """The store's error code, or the HTTP status where a response has no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_final(code: str) -> bool:
    """Whether a request that failed with this code would only fail again."""
    fault = _BY_CODE.get(_SAME_AS.get(code, code))
    return fault is not None and (fault.kind is ConfigurationError or code not in _PASSING)


_PASSING = {"SlowDown", *(name for name, same in _SAME_AS.items() if same == "SlowDown")}


def explain_code(code: str, message: str, what: str) -> LarderError:
    """The error for a store's answer to `what`, as in "writing to s3://bucket/key"."""
    if "no space left" in message:  # MinIO's InternalError, when the disk fills up under its hands
        code = "XMinioStorageFull"
    fault = _BY_CODE.get(_SAME_AS.get(code, code))
    if fault is None:
        return ServiceError(f"{what}: the store answers {code}: {message}".rstrip(": "), next_step=_AGAIN)
    bucket = re.search(r"s3://([^/:]+)", what)
    make_bucket = Run("s3", "bucket").having(S3_BUCKET=bucket[1] if bucket else "")
    step = fault.next_step.replace("{make_bucket}", str(make_bucket))
    return fault.kind(f"{what}: {fault.cause} ({code})", next_step=step)


def explain(error: Exception, what: str, endpoint: str) -> LarderError:
    """The error for one of FAULTS that a request raised; `what` was wanted of the store at `endpoint`."""
    if isinstance(error, ClientError):
        return _explain_answer(error, what, endpoint)
    if (fault := tls_faults.fault_of(error)) or isinstance(error, SSLError):
        return _explain_tls(fault, str(error), what, endpoint)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return ConfigurationError(
            f"{what}: there are no credentials for {_name(endpoint)}",
            next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and S3_ENDPOINT_URL for a store other than "
            "AWS: .env.example has a block for each kind",
        )
    if isinstance(error, ResponseParserError):
        return _not_a_store(what, endpoint, _short(error))
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
        return _unreachable(what, endpoint)
    if isinstance(error, ProxyConnectionError):
        return ServiceError(
            f"{what}: the proxy doesn't answer: {_short(error)}",
            next_step="check HTTPS_PROXY and HTTP_PROXY, or name the store's host in NO_PROXY; then run again",
        )
    if stalled := cause_of(error, StalledError):
        return ServiceError(f"{what}: {_name(endpoint)} makes no progress: {stalled}", next_step=_SLOW)
    if isinstance(error, ConnectionClosedError) and tls_faults.speaks_tls_unasked(endpoint):
        return _explain_tls("speaks https", "", what, endpoint)
    if isinstance(error, ReadTimeoutError):
        return ServiceError(f"{what}: {_name(endpoint)} has stopped sending", next_step=_SLOW)
    if isinstance(error, (HTTPClientError, HTTPError)):
        return ServiceError(f"{what}: the connection to {_name(endpoint)} broke: {_short(error)}", next_step=_AGAIN)
    return ServiceError(f"{what}: {_short(error)}", next_step=_AGAIN)


def _explain_answer(error: ClientError, what: str, endpoint: str) -> LarderError:
    code, message = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    if fault := tls_faults.fault_in(message):
        return _explain_tls(fault, message, what, endpoint)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if code.isdecimal() and code < "500" and not any(name.startswith("x-amz-") for name in headers):
        return _not_a_store(what, endpoint)
    explained = explain_code(code, message, what)
    skew = clock_skew_seconds(headers)
    if _SAME_AS.get(code, code) == "RequestTimeTooSkewed" and skew is not None:
        direction = "ahead of" if skew > 0 else "behind"
        explained = type(explained)(
            f"{explained.what}: it is {abs(skew) / 60:.0f} minutes {direction} the store's",
            next_step=explained.next_step,
        )
    return explained


def _not_a_store(what: str, endpoint: str, why: str = "") -> LarderError:
    return ConfigurationError(
        f"{what}: {_name(endpoint)} answers, but not as an S3 store does" + (f" ({why})" if why else ""),
        next_step="check S3_ENDPOINT_URL: it must be the S3 port, without a path",
    )


def clock_skew_seconds(headers: Mapping[str, str]) -> float | None:
    """How far this machine's clock is ahead of the store's, by an answer's `Date`; None where it has none."""
    try:
        return (datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _explain_tls(fault: tls_faults.Fault, text: str, what: str, endpoint: str) -> LarderError:
    """The error for a TLS connection that didn't come about; `text` are the client's words."""
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


def explain_words(words: str, what: str, endpoint: str) -> LarderError:
    """The error for the words of a client that is no library of Python's, such as rclone's."""
    if fault := tls_faults.fault_in(words):
        return _explain_tls(fault, words, what, endpoint)
    if any(sign in words for sign in _NO_CONTACT_IN_WORDS):
        return _unreachable(what, endpoint)
    return ServiceError(f"{what}: {_short(words)}", next_step=_AGAIN)


_NO_CONTACT_IN_WORDS = ("connection refused", "no such host", "no route to host", "network is unreachable")


def _unreachable(what: str, endpoint: str) -> LarderError:
    hint = (
        f"start the store ({Run('s3', 'up')} for the local one), or check S3_ENDPOINT_URL, the network and "
        "the firewall; then run again: what is done stays done"
    )
    if urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1") and Path("/.dockerenv").exists():
        hint += "; inside a container, localhost is the container itself"
    return ServiceError(f"{what}: {_name(endpoint)} doesn't answer", next_step=hint)


def _name(endpoint: str) -> str:
    return endpoint or "AWS"


def _short(error: Exception | str) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
