"""List and read the objects below a prefix of an S3 store, and detect changes after the listing."""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from larder import store
from larder.contract import MANIFEST
from larder.dataset import index_folder_of
from larder.errors import InputError, LarderError, ServiceError
from larder.s3_faults import NO_CONTACT, S3_ERRORS, code_of, explain_s3_error
from larder.sources.limits import TooLargeError
from larder.sources.members import BUFFER_BYTES, UnsafeNameError, is_litter, safe_path, unsafe_source_error
from larder.sources.patterns import WILD, as_pattern, fixed_folder
from larder.store import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MAX_KEYS_SEARCHED = 10_000  # to find one that isn't a folder marker
_MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
NOT_FOUND_CODES = {"NoSuchKey", "404", "NotFound"}
_MANIFEST_BELOW = f"/{MANIFEST}"
_INDEX_BELOW = f"{index_folder_of('')}/{MANIFEST}"
"""The end of an index's manifest, in whose folder is nothing else."""
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"} | NOT_FOUND_CODES
_PAUSES_SECONDS = (0.3, 1.0, 3.0, 9.0, 9.0)
_CLIENT_LOCK = threading.Lock()


class S3Object(NamedTuple):
    """An object below the prefix. `path` is relative to the prefix."""

    path: str
    bytes: int
    etag: str
    key: str


class ListingPage(NamedTuple):
    """One page of a listing."""

    objects: Sequence[S3Object]
    keys: int
    """Number of keys on the page, including those that are left out of `objects`."""
    next_token: str
    """Token of the next page; empty for the last page."""
    folders: list[str] = []  # noqa: RUF012


class PrefixReader:
    """The objects below `s3://bucket/prefix`, or those that match a pattern. Each process creates its own client.

    Args:
        uri: The prefix, or a pattern (`larder.sources.patterns`).
        settings: The store.
        max_keys: Maximum number of keys in a listing.
    """

    def __init__(self, uri: str, settings: StoreSettings, max_keys: int) -> None:
        self.name, self._settings, self._max_keys = uri, settings, max_keys
        self.bucket, key = store.split_uri(uri)
        self._pattern = as_pattern(key) if WILD.search(key) else None
        if self._pattern is not None:
            self.start = fixed_folder(key)
        else:
            self.start = key if not key or key.endswith("/") else f"{key}/"
        self._client_of_process: S3Client | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client_of_process": None}

    @property
    def _client(self) -> S3Client:
        with _CLIENT_LOCK:  # else each thread would create a client, which takes 0.1 s and 15 MB
            if self._client_of_process is None:
                self._client_of_process = store.make_client(self._settings, may_be_unsigned=True)
            return self._client_of_process

    def list(self) -> Iterator[S3Object]:
        """Yield every object except folder markers and litter, with one request per thousand keys.

        Raises:
            InputError: If a folder below the prefix is an artifact of larder.
            BadSourceError: If a key can't be a path.
            TooLargeError: If there are too many keys.
            ServiceError: If the store fails, or its listing is endless or malformed.
        """
        token = ""
        keys, checkpoint_key = 0, ""
        while True:
            page = self._page(self.start, token)
            for item in page.get("Contents", ()):
                keys += 1
                if item.get("Key") == checkpoint_key:
                    raise self._listing_error(f"lists the key {checkpoint_key!r} repeatedly")
                if keys & (keys - 1) == 0:  # at powers of two, as in Brent's algorithm for finding cycles
                    checkpoint_key = item.get("Key")
                if keys > self._max_keys:
                    raise TooLargeError(
                        f"{self.name} holds more than {self._max_keys:,} objects",
                        next_step="if you trust it, raise LARDER_MAX_FILES and run again",
                    )
                if (listed := self._object(item)) is not None:
                    yield listed
            token = self._next_token(page, token)
            if not token:
                return

    def list_page(self, start: str, token: str = "") -> ListingPage:
        """Return one page of the objects below a folder, with at most a thousand keys.

        Args:
            start: Key of the folder, with a final slash.
            token: Token of the page; empty for the first one.

        Raises:
            InputError: If a folder below is an artifact of larder.
            BadSourceError: If a key can't be a path.
            ServiceError: If the store fails, or its listing is malformed.
        """
        page = self._page(start, token)
        return ListingPage(*self._objects(page), self._next_token(page, token))

    def list_folder(self, start: str) -> ListingPage | None:
        """Return the objects and folders directly in a folder, or None if they don't fit on one page."""
        page = self._page(start, "", Delimiter="/")
        if page.get("IsTruncated"):
            return None
        names = [item.get("Prefix") for item in page.get("CommonPrefixes", ())]
        if not all(isinstance(name, str) and name.startswith(start) and len(name) > len(start) for name in names):
            raise self._listing_error(f"lists the folders {str(names)[:_MAX_KEY_BYTES]} of {start!r}")
        return ListingPage(*self._objects(page), "", names)

    def _objects(self, page: Any) -> tuple[Sequence[S3Object], int]:
        """Return the objects of a page, and its number of keys."""
        items = page.get("Contents", ())
        return [listed for item in items if (listed := self._object(item)) is not None], len(items)

    def _next_token(self, page: Any, token: str) -> str:
        """Return the token of the next page, or "" after the last one. `token` is that of `page`."""
        if not page.get("IsTruncated"):
            return ""
        token_after = page.get("NextContinuationToken")
        if not token_after or not page.get("Contents") or token_after == token:
            raise self._listing_error("lists a part of the objects and gives no way to continue")
        return str(token_after)

    def _page(self, start: str, token: str, **options: str) -> Any:
        if token:
            options["ContinuationToken"] = token
        what = f"listing {self.name}"
        for pause in (*_PAUSES_SECONDS, None):
            try:
                page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=start, **options)  # type: ignore[arg-type]
            except S3_ERRORS as fault:
                self._pause_or_raise(fault, what, pause)
            except ValueError as fault:  # a length that isn't a number
                raise self._listing_error(f"sends a malformed answer ({fault})") from None
            else:
                self._answered = True
                return page
        raise AssertionError("unreachable")

    def _pause_or_raise(self, fault: Exception, what: str, pause: float | None) -> None:
        """Wait before the next attempt, or raise an error if it can't help or the store has never answered."""
        unsigned = store.is_client_unsigned(self._client)
        error = explain_s3_error(fault, what, self._settings.s3_endpoint_url, unsigned=unsigned)
        is_transient = isinstance(error, ServiceError) and (self._answered or not isinstance(fault, NO_CONTACT))
        if pause is None or not is_transient:
            raise error from fault
        time.sleep(pause * random.uniform(0.5, 1.5))

    def _object(self, item: Any) -> S3Object | None:
        key, size = item.get("Key"), item.get("Size")
        if not isinstance(key, str) or not isinstance(size, int) or size < 0 or not key.startswith(self.start):
            raise self._listing_error(f"lists {str(key)[:_MAX_KEY_BYTES]!r} of {size} bytes")
        below = key[len(self.start) :]
        if self._pattern is not None and not self._pattern.fullmatch(key):
            return None
        if below.endswith(_MANIFEST_BELOW) and not below.endswith(_INDEX_BELOW):  # its files would be samples, too
            artifact = f"s3://{self.bucket}/{key.removesuffix(_MANIFEST_BELOW)}"
            raise InputError(
                f"{self.name} holds more than the originals: larder has written {artifact}",
                next_step="name the folder of the originals; move them first if larder's folders lie in it",
            )
        if key.endswith("/") or (size == 0 and key.endswith("_$folder$")) or is_litter(below):
            return None
        try:
            return S3Object(safe_path(below), size, str(item.get("ETag", "")).strip('"'), key)
        except UnsafeNameError as fault:
            raise unsafe_source_error(self.name, key, fault) from None

    def _listing_error(self, what: str) -> ServiceError:
        return ServiceError(
            f"listing {self.name}: the store {what}", next_step="check S3_ENDPOINT_URL; run again if it is right"
        )

    def has_objects(self) -> bool:
        """Return whether there is any object; False also if the store fails."""
        try:
            return next(self.list(), None) is not None
        except LarderError:
            return False

    def read(self, item: S3Object) -> Iterator[bytes]:
        """Yield an object's content in pieces, and resume after a lost connection.

        Raises:
            InputError: If the object has changed since it was listed.
            ServiceError: If the store fails, or sends content with another length or MD5 than it states.
        """
        digest, at, failures = hashlib.md5(usedforsecurity=False), 0, 0
        while True:
            comparable = False
            try:
                response = self._get(item, at)
                comparable = self._has_md5(response, item.etag)
                with response["Body"] as body:
                    while chunk := body.read(BUFFER_BYTES):
                        at, failures = at + len(chunk), 0
                        if at > item.bytes:
                            break
                        digest.update(chunk)
                        yield chunk
            except S3_ERRORS as fault:
                if isinstance(fault, ClientError) and code_of(fault) in _CHANGED:
                    raise self._changed_error(item) from fault
                pause = _PAUSES_SECONDS[failures] if failures < len(_PAUSES_SECONDS) else None
                self._pause_or_raise(fault, f"reading {self._uri(item)}", pause)
                failures += 1
                continue
            if at > item.bytes:
                raise self._read_error(item, f"sends more than {item.bytes:,} bytes")
            if at < item.bytes:
                if failures == len(_PAUSES_SECONDS):
                    raise self._read_error(item, f"sends {at:,} of {item.bytes:,} bytes and then stops")
                time.sleep(_PAUSES_SECONDS[failures])
                failures += 1
                continue
            if comparable and digest.hexdigest() != item.etag:
                raise self._read_error(item, f"sends bytes whose MD5 isn't the ETag {item.etag}")
            return

    def _get(self, item: S3Object, at: int) -> Any:
        conditions = {"IfMatch": f'"{item.etag}"'} if item.etag else {}
        if at:
            conditions["Range"] = f"bytes={at}-"
        try:
            response: Any = self._client.get_object(Bucket=self.bucket, Key=item.key, **conditions)  # type: ignore[arg-type]
        except ValueError as fault:
            raise self._read_error(item, f"sends a malformed answer ({fault})") from None
        self._answered = True
        if at and "ContentRange" not in response:
            raise self._read_error(item, "can't resume an object after the connection broke")
        return response

    def _changed_error(self, item: S3Object) -> InputError:
        return InputError(
            f"{self._uri(item)} has changed since it was listed", next_step="run again, which lists it again"
        )

    def _read_error(self, item: S3Object, what: str) -> ServiceError:
        return ServiceError(f"reading {self._uri(item)}: the store {what}", next_step="run again: it resumes")

    def _uri(self, item: S3Object) -> str:
        return f"s3://{self.bucket}/{item.key}"

    def _has_md5(self, response: Any, etag: str) -> bool:
        """Return whether an object's ETag is the MD5 of its content.

        It isn't after a multipart upload or with server-side encryption. The exception is AES256 on AWS, which AWS
        reports for every object.
        """
        encryption = response.get("ServerSideEncryption") or response.get("SSECustomerAlgorithm") or ""
        plain = {""} if self._settings.s3_endpoint_url else {"", "AES256"}
        return encryption in plain and is_md5(etag)


def find_object(uri: str, settings: StoreSettings) -> S3Object:
    """Look up the object at an s3:// URI. Its `path` is the last part of the key.

    Raises:
        InputError: If the object doesn't exist.
        ServiceError: If the store fails.
        ConfigurationError: If the store refuses the request.
    """
    bucket, key = store.split_uri(uri)
    client = store.make_client(settings, may_be_unsigned=True)
    try:
        head: Any = client.head_object(Bucket=bucket, Key=key)
    except S3_ERRORS as fault:
        if isinstance(fault, ClientError) and code_of(fault) in NOT_FOUND_CODES:
            raise InputError(
                f"{uri} does not exist", next_step="check LARDER_SOURCE, and that S3_ENDPOINT_URL is its store"
            ) from fault
        unsigned = store.is_client_unsigned(client)
        raise explain_s3_error(fault, f"reading {uri}", settings.s3_endpoint_url, unsigned=unsigned) from fault
    try:
        path = safe_path(key.rpartition("/")[2])
    except UnsafeNameError as fault:
        raise unsafe_source_error(uri, key, fault) from None
    return S3Object(path, int(head["ContentLength"]), str(head.get("ETag", "")).strip('"'), key)


def is_prefix(uri: str, settings: StoreSettings) -> bool:
    """Return whether an s3:// URI is that of a folder or a pattern, and not of an object. Ask the store if necessary.

    An empty object may be a folder marker. If the store refuses the request, the URI counts as that of an object, so
    that reading it shows the error.
    """
    bucket, key = store.split_uri(uri)
    if not key or key.endswith("/") or WILD.search(key):
        try:
            return not (key and not key.endswith("/") and _exists(uri, settings))
        except S3_ERRORS:
            return True
    try:
        head: Any = store.make_client(settings, may_be_unsigned=True).head_object(Bucket=bucket, Key=key)
        return head["ContentLength"] == 0 and PrefixReader(uri, settings, _MAX_KEYS_SEARCHED).has_objects()
    except ClientError as fault:
        return code_of(fault) in NOT_FOUND_CODES and PrefixReader(uri, settings, _MAX_KEYS_SEARCHED).has_objects()
    except (*S3_ERRORS, ValueError):
        return False


def _exists(uri: str, settings: StoreSettings) -> bool:
    """Return whether there is an object whose key looks like a pattern."""
    bucket, key = store.split_uri(uri)
    try:
        store.make_client(settings, may_be_unsigned=True).head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def is_md5(etag: str) -> bool:
    """Return whether an ETag has the form of an MD5."""
    return re.fullmatch("[0-9a-f]{32}", etag) is not None
