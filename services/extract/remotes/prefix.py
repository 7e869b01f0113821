"""Objects below a prefix of an S3 store."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from larder import store
from larder.errors import InputError, LarderError, ServiceError
from larder.progress import Reporter
from larder.s3_faults import FAULTS, NO_CONTACT, code_of, explain
from larder.sources import TooLargeError
from larder.sources.members import CHUNK_BYTES, Member, UnsafeNameError, is_litter, refuse, safe_path
from services.extract.download import download
from services.extract.patterns import WILD, as_pattern, fixed_folder
from services.extract.remotes.s3 import S3Remote
from services.extract.settings import ExtractSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_KEYS_TO_LOOK_AT = 10_000  # for one that is no marker of a folder
_MOST_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"} | _ABSENT
_PAUSES_SECONDS = (0.3, 1.0, 3.0, 9.0, 9.0)


class Object(NamedTuple):
    """An object below the prefix: its path there, and what the store says of it."""

    path: str
    bytes: int
    etag: str
    key: str


class Prefix:
    """The objects below `s3://bucket/prefix`, or those that match a pattern. Clients are made where they are used."""

    def __init__(self, uri: str, settings: ExtractSettings, max_keys: int) -> None:
        self.name, self._settings, self._max_keys = uri, settings, max_keys
        self._bucket, key = store.split_uri(uri)
        self._pattern = as_pattern(key) if WILD.search(key) else None
        if self._pattern is not None:
            self._start = fixed_folder(key)
        else:
            self._start = key if not key or key.endswith("/") else f"{key}/"
        self._client_here: S3Client | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client_here": None}

    @property
    def _client(self) -> S3Client:
        if self._client_here is None:
            self._client_here = store.client(self._settings)
        return self._client_here

    def list(self) -> Iterator[Object]:
        """Every object, without markers of folders and litter, a thousand in a request.

        Raises BadSourceError for a key that can't be a path, TooLargeError for too many keys, ServiceError for a
        listing that makes no progress.
        """
        token: dict[str, str] = {}
        keys, landmark = 0, ""
        while True:
            page = self._page(token)
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
            if not page.get("IsTruncated"):
                return
            following = page.get("NextContinuationToken")
            if not following or not page.get("Contents") or following == token.get("ContinuationToken"):
                raise self._senseless("says that there is more, and doesn't go on")
            token = {"ContinuationToken": following}

    def _page(self, token: dict[str, str]) -> Any:
        what = f"listing {self.name}"
        for pause in (*_PAUSES_SECONDS, None):
            try:
                page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._start, **token)  # type: ignore[arg-type]
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
        if not isinstance(key, str) or not isinstance(size, int) or size < 0 or not key.startswith(self._start):
            raise self._senseless(f"lists {str(key)[:_MOST_KEY_BYTES]!r} of {size} bytes")
        below = key[len(self._start) :]
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
            answer: Any = self._client.get_object(Bucket=self._bucket, Key=found.key, **conditions)  # type: ignore[arg-type]
        except ValueError as fault:
            raise self._wrong(found, f"answers what can't be read ({fault})") from None
        self._answered = True
        if at and "ContentRange" not in answer:
            raise self._wrong(found, "can't go on with an object where the connection broke")
        return answer

    def _changed(self, found: Object) -> InputError:
        return InputError(
            f"{self._uri(found)} has changed since it was listed", next_step="run again: it is listed anew"
        )

    def _wrong(self, found: Object, what: str) -> ServiceError:
        return ServiceError(
            f"reading {self._uri(found)}: the store {what}", next_step="run again: what has arrived stays"
        )

    def _uri(self, found: Object) -> str:
        return f"s3://{self._bucket}/{found.key}"

    def fetch(self, found: Object, scratch: Path, reporter: Reporter) -> Path:
        """Bring an object to this machine; what an earlier run brought of it is continued. Its MD5 is checked."""
        version = hashlib.sha256(f"{found.key}\0{found.etag}\0{found.bytes}".encode()).hexdigest()[:16]
        path = download(
            S3Remote(self._uri(found), self._settings), scratch / version, reporter, self._settings.max_download
        )
        if path.stat().st_size == found.bytes and (not _is_md5(found.etag) or self._is_intact(found, path)):
            return path
        path.unlink()
        raise self._wrong(found, f"sent other bytes than its listing says (ETag {found.etag}, {found.bytes:,} bytes)")

    def _is_intact(self, found: Object, path: Path) -> bool:
        with path.open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == found.etag:
                return True
        head: Any = self._client.head_object(Bucket=self._bucket, Key=found.key)
        return not self._has_md5(head, found.etag)

    def _has_md5(self, answer: Any, etag: str) -> bool:
        """Whether an object's ETag is the MD5 of its bytes: not with several parts, nor where a store encrypts with
        keys of its own; AWS says AES256 of every object, and keeps the MD5.
        """
        encryption = answer.get("ServerSideEncryption") or answer.get("SSECustomerAlgorithm") or ""
        plain = {""} if self._settings.s3_endpoint_url else {"", "AES256"}
        return encryption in plain and _is_md5(etag)


def is_prefix(uri: str, settings: ExtractSettings) -> bool:
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
        head: Any = store.client(settings).head_object(Bucket=bucket, Key=key)
        return head["ContentLength"] == 0 and Prefix(uri, settings, _KEYS_TO_LOOK_AT).holds_any()
    except ClientError as fault:
        return code_of(fault) in _ABSENT and Prefix(uri, settings, _KEYS_TO_LOOK_AT).holds_any()
    except (*FAULTS, ValueError):
        return False


def _exists(uri: str, settings: ExtractSettings) -> bool:
    """Whether there is an object whose key holds what could be a pattern."""
    bucket, key = store.split_uri(uri)
    try:
        store.client(settings).head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def _is_md5(etag: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", etag) is not None


class Listing:
    """A listing in a file, so that its length doesn't matter: a JSON line for each object, and a digest of all."""

    def __init__(self, path: Path) -> None:
        self.path, self.files, self.bytes, self.sha256 = path, 0, 0, ""

    def write(self, objects: Iterable[Object]) -> None:
        """Write them down."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with self.path.open("wb") as file:
            for found in objects:
                self.files, self.bytes = self.files + 1, self.bytes + found.bytes
                line = json.dumps(found, ensure_ascii=False).encode() + b"\n"
                digest.update(line)
                file.write(line)
        self.sha256 = digest.hexdigest()

    def __iter__(self) -> Iterator[Object]:
        with self.path.open("rb") as file:
            for line in file:
                yield Object(*json.loads(line))


class PrefixSource:
    """Objects below a prefix as a source: files as they are."""

    parallel = True
    counted = True
    verb = "download"
    total: int | None = None
    threads = 16
    """Requests at once in one process: an object's bytes come faster than its first one."""

    def __init__(self, prefix: Prefix, listing: Listing) -> None:
        self.name, self._prefix, self._listing = prefix.name, prefix, listing

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        for found in self._listing:
            yield Member(found.path, found.bytes, found)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        return self._prefix.read(member.place)
