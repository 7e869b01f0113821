"""Files in an S3 store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError, ReadTimeoutError

from larder import store
from larder.connections import StalledError, find_cause
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_s3_error
from larder.sources.members import BUFFER_BYTES
from services.extract.remotes import ChangedError, Response, StalledDownloadError, TransientError
from services.extract.remotes.http import parse_content_range

_CHANGED = {"PreconditionFailed", "InvalidRange", "412", "416"}
_CHECK_SOURCE = "check LARDER_SOURCE, and that S3_ENDPOINT_URL is its store"
_DENIED = {"AccessDenied", "Forbidden", "403"}


class S3Remote:
    """The object at an s3:// URI. Without keys, requests are unsigned, as public buckets allow."""

    def __init__(self, uri: str, settings: store.StoreSettings) -> None:
        self.name = uri
        self._bucket, self._key = store.split_uri(uri)
        self._endpoint = settings.s3_endpoint_url
        self._client = store.make_client(settings, may_be_unsigned=True)

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        conditions = {"Range": f"bytes={offset}-", "IfMatch": validator} if offset and validator else {}
        try:
            response = self._client.get_object(Bucket=self._bucket, Key=self._key, **conditions)  # type: ignore[arg-type]
        except S3_ERRORS as fault:
            raise self._explain(fault) from fault
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        with response["Body"] as body:
            start, total = parse_content_range(
                206 if "content-range" in headers else 200,
                {"Content-Length": headers.get("content-length"), "Content-Range": headers.get("content-range", "")},
            )
            etag = response.get("ETag", "")
            yield Response(start, total, etag, self._read_body(body), self.name, etag)

    def _explain(self, fault: Exception) -> Exception:
        """Translate a store's error: a TransientError if a retry may help."""
        code = code_of(fault) if isinstance(fault, ClientError) else ""
        if code == "NoSuchBucket":
            return InputError(f"{self.name} does not exist: there is no such bucket", next_step=_CHECK_SOURCE)
        if code in ABSENT_CODES:
            return self._missing_object_error()
        if code in _CHANGED:
            return ChangedError("the object has changed since the download began")
        error = explain_s3_error(fault, f"reading {self.name}", self._endpoint)
        if code in _DENIED and store.is_client_unsigned(self._client):
            return ConfigurationError(
                f"reading {self.name}: access is denied without keys ({code})",
                next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or check that the bucket is public",
            )
        return _transient(error, fault) if isinstance(error, ServiceError) else error

    def _missing_object_error(self) -> LarderError:
        """Return the error for a missing object, which may be a folder."""
        folder = self._key.rstrip("/") + "/"
        try:
            listing: Any = self._client.list_objects_v2(Bucket=self._bucket, Prefix=folder, MaxKeys=1)
        except S3_ERRORS:  # keys that may read need not be allowed to list
            listing = {}
        if listing.get("Contents"):
            return InputError(
                f"{self.name} is a folder of the bucket, not an archive",
                next_step=f"give an archive in it as LARDER_SOURCE, or copy the folder (`aws s3 sync s3://{self._bucket}/"
                f"{folder} <folder>`) and give the copy",
            )
        return InputError(f"{self.name} does not exist", next_step=_CHECK_SOURCE)

    def _read_body(self, body: Any) -> Iterator[bytes]:
        try:
            while chunk := body.read(BUFFER_BYTES):
                yield chunk
        except (BotoCoreError, HTTPError, OSError, ValueError) as fault:
            raise _transient(fault, fault) from fault


def _transient(error: Exception, fault: Exception) -> TransientError:
    message = error.what if isinstance(error, LarderError) else str(error)
    stalled = any(find_cause(fault, kind) for kind in (StalledError, ReadTimeoutError))
    return (StalledDownloadError if stalled else TransientError)(message)
