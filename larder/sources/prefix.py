"""Objects below a prefix of an S3 store: listed, and read while they stay what was listed."""

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
from larder.errors import InputError, LarderError, ServiceError
from larder.s3_faults import FAULTS, NO_CONTACT, code_of, explain
from larder.sources.limits import TooLargeError
from larder.sources.members import CHUNK_BYTES, UnsafeNameError, is_litter, refuse, safe_path
from larder.sources.patterns import WILD, as_pattern, fixed_folder
from larder.store import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEYS_TO_LOOK_AT = 10_000  # for one that is no marker of a folder
_MOST_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
ABSENT = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"} | ABSENT
_PAUSES_SECONDS = (0.3, 1.0, 3.0, 9.0, 9.0)


_OPENING = threading.Lock()


class Object(NamedTuple):
    """An object below the prefix: its path there, and what the store says of it."""

    path: str
    bytes: int
    etag: str
    key: str


class Page(NamedTuple):
    """A part of a listing."""

    objects: Sequence[Object]
    keys: int
    """How many keys the store has named, also those that are no objects of the listing."""
    following: str
    """What asks for the next one; empty where there is none."""
    folders: list[str] = []  # noqa: RUF012


class Prefix:
    """The objects below `s3://bucket/prefix`, or those that match a pattern. Clients are made where they are used."""

    def __init__(self, uri: str, settings: StoreSettings, max_keys: int) -> None:
        self.name, self._settings, self._max_keys = uri, settings, max_keys
        self.bucket, key = store.split_uri(uri)
        self._pattern = as_pattern(key) if WILD.search(key) else None
        if self._pattern is not None:
            self.start = fixed_folder(key)
        else:
            self.start = key if not key or key.endswith("/") else f"{key}/"
        self._client_here: S3Client | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client_here": None}

    @property
    def _client(self) -> S3Client:
        with _OPENING:  # else each thread would make one: a tenth of a second, 15 MB
            if self._client_here is None:
                self._client_here = store.client(self._settings, may_be_unsigned=True)
            return self._client_here

    def list(self) -> Iterator[Object]:
        """Every object, without markers of folders and litter, a thousand in a request.

        Raises BadSourceError for a key that can't be a path, TooLargeError for too many keys, ServiceError for a
        listing that makes no progress.
        """
        token = ""
        keys, landmark = 0, ""
        while True:
            page = self._page(self.start, token)
            for item in page.get("Contents", ()):
                keys += 1
                if item.get("Key") == landmark:
                    raise self._senseless(f"lists the key {landmark!r} again and again")
                if keys & (keys - 1) == 0:  # at powers of two: any cycle comes back to one of them at last (Brent)
                    landmark = item.get("Key")
                if keys > self._max_keys:
                    raise TooLargeError(
                        f"{self.name} holds more than {self._max_keys:,} objects",
                        next_step="if you trust it, raise LARDER_MAX_FILES and run again",
                    )
                if (found := self._object(item)) is not None:
                    yield found
            token = self._following(page, token)
            if not token:
                return

    def page(self, start: str, token: str = "") -> Page:
        """The first objects below a folder of the listing, or those that follow: at most a thousand. See `list`."""
        page = self._page(start, token)
        return Page(*self._objects(page), self._following(page, token))

    def folders(self, start: str) -> Page | None:
        """The objects directly in a folder, and the folders in it; None where these are more than a page."""
        page = self._page(start, "", Delimiter="/")
        if page.get("IsTruncated"):
            return None
        names = [item.get("Prefix") for item in page.get("CommonPrefixes", ())]
        if not all(isinstance(name, str) and name.startswith(start) and len(name) > len(start) for name in names):
            raise self._senseless(f"lists the folders {str(names)[:_MOST_KEY_BYTES]} of {start!r}")
        return Page(*self._objects(page), "", names)

    def _objects(self, page: Any) -> tuple[Sequence[Object], int]:
        """The objects of a page, and how many keys it names."""
        items = page.get("Contents", ())
        found = (self._object(item) for item in items)
        return [one for one in found if one is not None], len(items)

    def _following(self, page: Any, token: str) -> str:
        """The token of the page after one that came for `token`; empty after the last one."""
        if not page.get("IsTruncated"):
            return ""
        following = page.get("NextContinuationToken")
        if not following or not page.get("Contents") or following == token:
            raise self._senseless("says that there is more, and doesn't go on")
        return str(following)

    def _page(self, start: str, token: str, **options: str) -> Any:
        if token:
            options["ContinuationToken"] = token
        what = f"listing {self.name}"
        for pause in (*_PAUSES_SECONDS, None):
            try:
                page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=start, **options)  # type: ignore[arg-type]
            except FAULTS as fault:
                self._pause_or_raise(fault, what, pause)
            except ValueError as fault:  # a length that isn't a number
                raise self._senseless(f"answers what can't be read ({fault})") from None
            else:
                self._answered = True
                return page
        raise AssertionError("unreachable")

    def _pause_or_raise(self, fault: Exception, what: str, pause: float | None) -> None:
        """Wait when another try may help; a store that has never answered is not waited for."""
        error = explain(fault, what, self._settings.s3_endpoint_url)
        passing = isinstance(error, ServiceError) and (self._answered or not isinstance(fault, NO_CONTACT))
        if pause is None or not passing:
            raise error from fault
        time.sleep(pause * random.uniform(0.5, 1.5))

    def _object(self, item: Any) -> Object | None:
        key, size = item.get("Key"), item.get("Size")
        if not isinstance(key, str) or not isinstance(size, int) or size < 0 or not key.startswith(self.start):
            raise self._senseless(f"lists {str(key)[:_MOST_KEY_BYTES]!r} of {size} bytes")
        below = key[len(self.start) :]
        if self._pattern is not None and not self._pattern.fullmatch(key):
            return None
        if key.endswith("/") or (size == 0 and key.endswith("_$folder$")) or is_litter(below):
            return None
        try:
            return Object(safe_path(below), size, str(item.get("ETag", "")).strip('"'), key)
        except UnsafeNameError as fault:
            raise refuse(self.name, key, fault) from None

    def _senseless(self, what: str) -> ServiceError:
        return ServiceError(
            f"listing {self.name}: the store {what}", next_step="check S3_ENDPOINT_URL; run again if it is right"
        )

    def holds_any(self) -> bool:
        """Whether there is an object; False as well when the store doesn't say."""
        try:
            return next(self.list(), None) is not None
        except LarderError:
            return False

    def read(self, found: Object) -> Iterator[bytes]:
        """An object's bytes in chunks; goes on where a connection broke.

        Raises InputError when the object has changed since it was listed, ServiceError when the store fails or sends
        something else than it says.
        """
        digest, at, failures = hashlib.md5(usedforsecurity=False), 0, 0
        while True:
            comparable = False
            try:
                answer = self._get(found, at)
                comparable = self._has_md5(answer, found.etag)
                with answer["Body"] as body:
                    while chunk := body.read(CHUNK_BYTES):
                        at, failures = at + len(chunk), 0
                        if at > found.bytes:
                            break
                        digest.update(chunk)
                        yield chunk
            except FAULTS as fault:
                if isinstance(fault, ClientError) and code_of(fault) in _CHANGED:
                    raise self._changed(found) from fault
                pause = _PAUSES_SECONDS[failures] if failures < len(_PAUSES_SECONDS) else None
                self._pause_or_raise(fault, f"reading {self._uri(found)}", pause)
                failures += 1
                continue
            if at > found.bytes:
                raise self._wrong(found, f"sends more than {found.bytes:,} bytes")
            if at < found.bytes:
                if failures == len(_PAUSES_SECONDS):
                    raise self._wrong(found, f"sends {at:,} of {found.bytes:,} bytes, and then no more")
                time.sleep(_PAUSES_SECONDS[failures])
                failures += 1
                continue
            if comparable and digest.hexdigest() != found.etag:
                raise self._wrong(found, f"sends bytes whose MD5 isn't the ETag {found.etag}")
            return

    def _get(self, found: Object, at: int) -> Any:
        conditions = {"IfMatch": f'"{found.etag}"'} if found.etag else {}
        if at:
            conditions["Range"] = f"bytes={at}-"
        try:
            answer: Any = self._client.get_object(Bucket=self.bucket, Key=found.key, **conditions)  # type: ignore[arg-type]
        except ValueError as fault:
            raise self._wrong(found, f"answers what can't be read ({fault})") from None
        self._answered = True
        if at and "ContentRange" not in answer:
            raise self._wrong(found, "can't go on with an object where the connection broke")
        return answer

    def _changed(self, found: Object) -> InputError:
        return InputError(
            f"{self._uri(found)} has changed since it was listed", next_step="run again, which lists it again"
        )

    def _wrong(self, found: Object, what: str) -> ServiceError:
        return ServiceError(
            f"reading {self._uri(found)}: the store {what}", next_step="run again: what has arrived stays"
        )

    def _uri(self, found: Object) -> str:
        return f"s3://{self.bucket}/{found.key}"

    def _has_md5(self, answer: Any, etag: str) -> bool:
        """Whether an object's ETag is the MD5 of its bytes: not with several parts, nor where a store encrypts with
        keys of its own; AWS says AES256 of every object, and keeps the MD5.
        """
        encryption = answer.get("ServerSideEncryption") or answer.get("SSECustomerAlgorithm") or ""
        plain = {""} if self._settings.s3_endpoint_url else {"", "AES256"}
        return encryption in plain and is_md5(etag)


def find_object(uri: str, settings: StoreSettings) -> Object:
    """The object at an s3:// URI, by its name as a path.

    Raises InputError when it isn't there, ServiceError or ConfigurationError when the store fails or refuses.
    """
    bucket, key = store.split_uri(uri)
    try:
        head: Any = store.client(settings, may_be_unsigned=True).head_object(Bucket=bucket, Key=key)
    except ClientError as fault:
        if code_of(fault) in ABSENT:
            raise InputError(
                f"{uri} does not exist", next_step="check LARDER_SOURCE, and that S3_ENDPOINT_URL is its store"
            ) from fault
        raise explain(fault, f"reading {uri}", settings.s3_endpoint_url) from fault
    except FAULTS as fault:
        raise explain(fault, f"reading {uri}", settings.s3_endpoint_url) from fault
    try:
        path = safe_path(key.rpartition("/")[2])
    except UnsafeNameError as fault:
        raise refuse(uri, key, fault) from None
    return Object(path, int(head["ContentLength"]), str(head.get("ETag", "")).strip('"'), key)


def is_prefix(uri: str, settings: StoreSettings) -> bool:
    """Whether an s3:// URI is that of a folder or a pattern, not of an object; asks the store where that isn't clear.

    An empty object may stand for a folder. What the store refuses counts as an object, whose error is to be shown.
    """
    bucket, key = store.split_uri(uri)
    if not key or key.endswith("/") or WILD.search(key):
        try:
            return not (key and not key.endswith("/") and _exists(uri, settings))
        except FAULTS:
            return True
    try:
        head: Any = store.client(settings, may_be_unsigned=True).head_object(Bucket=bucket, Key=key)
        return head["ContentLength"] == 0 and Prefix(uri, settings, _KEYS_TO_LOOK_AT).holds_any()
    except ClientError as fault:
        return code_of(fault) in ABSENT and Prefix(uri, settings, _KEYS_TO_LOOK_AT).holds_any()
    except (*FAULTS, ValueError):
        return False


def _exists(uri: str, settings: StoreSettings) -> bool:
    """Whether there is an object whose key holds what could be a pattern."""
    bucket, key = store.split_uri(uri)
    try:
        store.client(settings, may_be_unsigned=True).head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def is_md5(etag: str) -> bool:
    """Whether an ETag may be an MD5."""
    return re.fullmatch("[0-9a-f]{32}", etag) is not None
