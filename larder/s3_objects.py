"""Get objects from a store with a fraction of the CPU time that boto3 takes.

To create boto3's client takes 0.15 s of CPU, to parse the description of the protocol, and each of its requests 1 ms.
The client here signs and sends nothing but requests for objects. It does so with botocore's own parts (credentials,
signatures, connections, parser of errors), so that it reaches every store that boto3 reaches, and fails alike.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody
from botocore.utils import get_environ_proxies

from larder.s3_session import BoundedResponse, BoundedSession, Parsers
from larder.store import (
    CONNECT_SECONDS,
    DEFAULT_REGION,
    MAX_CONNECTIONS,
    REQUESTER_PAYS,
    StoreSettings,
    find_access,
    has_profile,
    make_client,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_FOUND = (200, 206)
_RETRIED_BY_BOTO3 = (400, *range(300, 400))
"""Statuses after which boto3 may find the right address, or the right region for the signature."""

_USUAL_REGION = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-\d")
"""Regions of the partition whose addresses end with amazonaws.com."""
_USUAL_BUCKET = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]")
"""Buckets whose names are a part of the host's name; those with two hyphens may be of another kind."""
_UNUSUAL_ENDINGS = "-s3alias"
_ENDPOINT_VARIABLES = ("AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT")


def make_object_client(settings: StoreSettings) -> S3Client:
    """Return a client like that of `larder.store.make_client`, but with a fast `get_object`.

    Without S3_ENDPOINT_URL, which means AWS, it is boto3's client, unless the environment names a usual region and no
    profile: only then is the address known without the rules that boto3's client reads.

    Args:
        settings: The store.

    Raises:
        ConfigurationError: If botocore rejects the settings.
    """
    if not settings.s3_endpoint_url and not _aws_region(settings):
        return make_client(settings)
    try:
        return cast("S3Client", ObjectClient(settings))
    except (BotoCoreError, ValueError):
        return make_client(settings)  # it says what is wrong


class ObjectClient:
    """Stand for boto3's client: `get_object` is fast, and everything else is boto3's, whose client is made for it.

    Create it in the process that uses it: it must not be forked. Its methods may be called in several threads.

    Args:
        settings: A store with an address, or a usual region of AWS.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._access = find_access(settings)
        endpoint = settings.s3_endpoint_url or _aws_endpoint(self._access.region)
        self._session = _open_session(endpoint, settings.stall_seconds, self._access.ca_bundle)
        self._parser: Any = Parsers().create_parser("rest-xml")
        self._headers = {"User-Agent": "larder", **(REQUESTER_PAYS if settings.requester_pays else {})}
        self._lock, self._is_fast = threading.Lock(), True
        self._full: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._full_client(), name)

    def get_object(self, *, Bucket: str, Key: str, Range: str = "", IfMatch: str = "") -> dict[str, Any]:
        """Return an object's "Body", "ETag", "ContentRange"; see boto3. Raises what boto3 raises."""
        conditions = {name: value for name, value in (("Range", Range), ("If-Match", IfMatch)) if value}
        address = self._address(Bucket)
        if self._is_fast and address:
            response = self._send(f"{address}/{quote(Key, safe='/~')}", conditions)
            if response.status_code in _FOUND:
                return _parsed(response)
            if response.status_code not in _RETRIED_BY_BOTO3:
                raise ClientError(self._parse_error(response), "GetObject")
            response.raw.close()
            self._is_fast = False
        given = {name.replace("-", ""): value for name, value in conditions.items()}
        return self._full_client().get_object(Bucket=Bucket, Key=Key, **given)  # type: ignore[no-any-return]

    def _address(self, bucket: str) -> str:
        """Return where a bucket is; empty if boto3 must find it."""
        if self._settings.s3_endpoint_url:
            return f"{self._settings.s3_endpoint_url}/{bucket}"
        if not _USUAL_BUCKET.fullmatch(bucket) or bucket.endswith(_UNUSUAL_ENDINGS):
            return ""
        return _aws_endpoint(self._access.region).replace("s3", f"{bucket}.s3", 1)

    def _send(self, url: str, headers: dict[str, str]) -> BoundedResponse:
        request: Any = AWSRequest(method="GET", url=url, headers=self._headers | headers, stream_output=True)
        if not self._settings.unsigned:
            if self._access.keys is None:
                raise NoCredentialsError
            keys: Any = self._access.keys.get_frozen_credentials()
            S3SigV4Auth(keys, "s3", self._access.region).add_auth(request)
        return self._session.send(request.prepare())

    def _parse_error(self, response: BoundedResponse) -> Any:
        fields = {"status_code": response.status_code, "headers": response.headers, "body": response.content}
        return self._parser.parse(fields, None)

    def _full_client(self) -> Any:
        with self._lock:
            if self._full is None:
                self._full = make_client(self._settings)
            return self._full


def _aws_region(settings: StoreSettings) -> str:
    """Return the region of AWS that the environment names; empty if it is unusual, or if a profile may say more."""
    region = settings.aws_region or os.environ.get("AWS_DEFAULT_REGION", "")
    is_plain = not has_profile() and not any(name in os.environ for name in _ENDPOINT_VARIABLES)
    return region if is_plain and _USUAL_REGION.fullmatch(region) else ""


def _aws_endpoint(region: str) -> str:
    """Return the address of S3 in a usual region, as boto3 writes it."""
    return "https://s3.amazonaws.com" if region == DEFAULT_REGION else f"https://s3.{region}.amazonaws.com"


def _open_session(endpoint: str, stall_seconds: int, ca_bundle: str) -> BoundedSession:
    """Return connections with the certificates, the proxy and the limits of `larder.store.make_client`."""
    options: Any = {
        "verify": ca_bundle or True,
        "proxies": get_environ_proxies(endpoint),
        "timeout": (CONNECT_SECONDS, stall_seconds),
        "max_pool_connections": MAX_CONNECTIONS,
    }
    return BoundedSession(URLLib3Session(**options), stall_seconds)


def _parsed(response: BoundedResponse) -> dict[str, Any]:
    """Return what callers use of the response to a request for an object."""
    headers: Any = response.headers
    length = headers.get("content-length")
    if length is not None and not length.isdecimal():
        raise ResponseParserError(f"an object of {length[:100]!r} bytes")
    fields = {"ETag": headers.get("etag"), "ContentRange": headers.get("content-range")}
    body = StreamingBody(response.raw, length)
    return {"Body": body, **{name: value for name, value in fields.items() if value is not None}}
