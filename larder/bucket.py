"""One folder of a bucket: to list, read, write and delete in."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from larder.batches import batches
from larder.contract import MANIFEST, MANIFEST_BYTES, Manifest, parse_manifest
from larder.errors import InputError, ServiceError
from larder.fingerprint import CUTOFF_BYTES, PART_BYTES
from larder.next_step import Run
from larder.s3_faults import ABSENT, FAULTS, NO_CONTACT, code_of, explain, explain_code
from larder.store import BucketSettings, client
from larder.volume import require_space

if TYPE_CHECKING:
    from hashlib import _Hash

    from mypy_boto3_s3.type_defs import CopySourceTypeDef, ObjectIdentifierTypeDef, PutObjectOutputTypeDef

Page = list[dict[str, Any]]
"""The entries of one answer to a listing."""
Q = TypeVar("Q")
R = TypeVar("R")

_PAUSES_SECONDS = (0.3, 1.0, 3.0, 9.0)
"""Between the tries of one request."""
_ABORT_SECONDS = 2.0
"""For a store to answer that it has dropped an upload: a run may be interrupted because the store is silent."""
_DELETED_AT_ONCE = 1000  # the protocol's limit
_PAST_THE_END = {"InvalidRange", "416"}
_CHUNK_BYTES = 1 << 20
_BINARY = "application/octet-stream"
MOST_BYTES = 64 << 20
"""Of an object that is read into memory: a manifest, an image."""
_LARGEST = (1 << 63) - 1
_NEXT_OBJECTS = {"ContinuationToken": "NextContinuationToken"}
_NEXT_UPLOADS = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
_SPARE_BYTES = 64 << 20
"""What stays free on a disk that an object is written to."""
_SPARSE_PAGES, _SPARSE_ITEMS = 1000, 10
"""After so many pages, each must have had so many entries on average; stores send a thousand."""
_CHECK_STORE = f"check S3_ENDPOINT_URL; {Run('s3', 'check')} looks closer"
_RENEW = "look what has written to the bucket, and run the command that made the data once more, with LARDER_FORCE=true"
_UNKNOWN_CHECKSUM = {"NotImplemented", "InvalidArgument", "InvalidRequest"}
"""What stores may say that take no checksum but the MD5."""


class Listed(NamedTuple):
    """An object as a listing shows it; `path` is relative to the folder, `etag` without quotes."""

    path: str
    bytes: int
    etag: str


class Folder:
    """One folder of a bucket, `[<prefix>/]<name>`, or, without both, all of it. Paths are relative to it.

    Open it where it is used: it isn't forked.

    Every method raises ConfigurationError or ServiceError, with the cause, when the store refuses or fails.
    """

    def __init__(self, settings: BucketSettings, name: str) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self.key = "/".join(part for part in (settings.prefix, name) if part)
        self.uri = f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"
        self._start = f"{self.key}/" if self.key else ""
        self._client = client(settings)
        self._answered = False
        self._takes_checksums = True

    def _at(self, path: str) -> str:
        """The key of an object."""
        return self._start + path

    def list(self, below: str = "") -> Iterator[Listed]:
        """Every object below the folder `below`, one request per thousand."""
        start = self._start
        prefix, what = (f"{start}{below}/" if below else start), f"listing {self.uri}/{below}"

        def ask(more: dict[str, str]) -> Any:
            return self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **more)  # type: ignore[arg-type]

        for page in self._pages(what, ask, "Contents", _NEXT_OBJECTS):
            for item in page:
                yield _listed(item, start, what)

    def _pages(
        self, what: str, ask: Callable[[dict[str, str]], Any], kind: str, following: dict[str, str]
    ) -> Iterator[Page]:
        """The items of each page of a listing.

        `following` are the parameters that ask for the next page, and what they are called in the page before. Raises
        ServiceError for a listing without an end: where the store says the same again, or goes on without a place.
        """
        more: dict[str, str] = {}
        seen, pages, count = set[int](), 0, 0
        while True:
            page = self._ask(what, ask, more)
            items = page.get(kind) or []
            yield items
            if not page.get("IsTruncated"):
                return
            pages, count = pages + 1, count + len(items)
            more = {asked: page.get(given) or "" for asked, given in following.items()}
            marks = {hash(tuple(more.values())), *(hash(("first", str(item.get("Key")))) for item in items[:1])}
            if not next(iter(more.values())):
                raise _endless(what, "it says that there is more, and not where")
            if not marks.isdisjoint(seen):
                raise _endless(what, "it gives the same page again")
            if pages > _SPARSE_PAGES and count < pages * _SPARSE_ITEMS:
                raise _endless(what, f"{pages:,} pages have {count:,} entries")
            seen |= marks

    def read(self, path: str, most: int = MOST_BYTES) -> bytes | None:
        """The content of an object, or None when there is none. Raises InputError for more than `most` bytes."""
        return self.with_body(path, lambda body: _bounded(body, most, f"{self.uri}/{path}"))

    def read_range(self, path: str, offset: int, length: int) -> bytes | None:
        """`length` bytes of an object from `offset` on, or fewer where it ends before; None when there is none."""

        def get(key: str) -> bytes | None:
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)
                with answer["Body"] as body:
                    _require_range(answer.get("ContentRange", ""), offset, what)
                    return b"".join(_pieces(body, length))
            except ClientError as fault:
                if code_of(fault) in ABSENT:
                    return None
                if code_of(fault) in _PAST_THE_END:
                    return b""
                raise

        wanted, what = f"bytes={offset}-{offset + length - 1}", f"reading {self.uri}/{path}"
        return self._ask(what, get, self._at(path))

    def read_start(self, path: str, most: int) -> bytes | None:
        """The first bytes of an object, at most so many; None when there is none."""
        return self.with_body(path, lambda body: b"".join(_pieces(body, most)))

    def digest(self, path: str, most: int | None = None) -> tuple[int, str] | None:
        """Length and sha256 of an object's content, which is read; None when there is none.

        One that is longer than `most` bytes isn't read to its end, and the digest is of no use.
        """
        return self.with_body(path, lambda body: _copy(body, None, most))

    def download(self, path: str, place: Path, most: int | None = None) -> str | None:
        """Write an object's content to the file `place`. Returns its sha256, or None when there is no such object.

        Of one that is longer than `most` bytes, only so many are written, and the digest is of no use.
        """
        found = self.with_body(path, lambda body: _copy(body, place, most))
        return found and found[1]

    def with_body(self, path: str, use: Callable[[StreamingBody], R]) -> R | None:
        """What `use` makes of an object's body, or None when there is no such object. After a fault it starts over."""

        def get(key: str) -> R | None:
            try:
                with self._client.get_object(Bucket=self.bucket, Key=key)["Body"] as body:
                    return use(body)
            except ClientError as fault:
                if code_of(fault) in ABSENT:
                    return None
                raise

        return self._ask(f"reading {self.uri}/{path}", get, self._at(path))

    def write(self, path: str, data: bytes, content_type: str = _BINARY) -> str:
        """Put an object; returns its ETag. The store refuses what arrives with another MD5."""
        return self._ask(
            f"writing {self.uri}/{path}", lambda key: self._put(key, data, content_type)["ETag"], self._at(path)
        ).strip('"')

    def write_confirmed(self, path: str, data: bytes | bytearray) -> tuple[str, bool]:
        """Put an object; returns its ETag, and whether that is sure to be these bytes.

        The store is asked to confirm a CRC32C, which takes either side a tenth of the time of a sha256. Where it can't,
        it is asked once, and its ETag is compared with the MD5.
        """
        from crc32c import crc32c  # here, since only who packs into a store has it

        wanted = b64encode(crc32c(data).to_bytes(4, "big")).decode()

        def put(key: str) -> PutObjectOutputTypeDef:
            if self._takes_checksums:
                try:
                    return self._put(key, data, _BINARY, wanted)
                except ClientError as fault:
                    if code_of(fault) not in _UNKNOWN_CHECKSUM:
                        raise
            answer = self._put(key, data, _BINARY)
            self._takes_checksums = False  # for it takes the same without one
            return answer

        answer = self._ask(f"writing {self.uri}/{path}", put, self._at(path))
        etag = answer["ETag"].strip('"')
        return etag, answer.get("ChecksumCRC32C") == wanted or etag == _md5(data).hexdigest()

    def require(self, path: str, length: int, sha256: str) -> None:
        """Read an object back. Raises ServiceError when it isn't what was sent: of this length, with this digest."""
        if self.digest(path, length) != (length, sha256):
            raise ServiceError(
                f"{self.uri}/{path}: the store holds other bytes than were sent",
                next_step=f"run {Run('s3', 'check')}, then this again: it resumes",
            )

    def _put(self, key: str, data: bytes | bytearray, content_type: str, crc: str = "") -> PutObjectOutputTypeDef:
        """Put an object with what the store compares: this CRC32C in base 64, or its MD5."""
        body = cast(bytes, data)  # botocore takes both
        if crc:
            return self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, ChecksumCRC32C=crc
            )
        return self._client.put_object(
            Bucket=self.bucket, Key=key, Body=body, ContentType=content_type,
            ContentMD5=b64encode(_md5(data).digest()).decode(),
        )  # fmt: skip

    def write_parts(self, path: str, parts: Iterable[bytes | bytearray]) -> str:
        """Put an object in parts, each sent as it comes; returns its ETag.

        When that fails, nothing of it is left, unless the store is silent.
        """
        return self._in_parts(
            path, parts, lambda place, part: self._client.upload_part(**place, Body=cast(bytes, part))["ETag"]
        )

    def copy(self, source: str, path: str, size: int) -> str:
        """Have the store copy an object of `size` bytes to `path`; returns the ETag that it has there.

        A large one is copied in the parts that it was uploaded in, which its ETag depends on.
        """
        origin: CopySourceTypeDef = {"Bucket": self.bucket, "Key": self._at(source)}
        if size >= CUTOFF_BYTES:
            ranges = (f"bytes={at}-{min(at + PART_BYTES, size) - 1}" for at in range(0, size, PART_BYTES))
            return self._in_parts(
                path, ranges, lambda place, part: self._client.upload_part_copy(
                    **place, CopySource=origin, CopySourceRange=part
                )["CopyPartResult"]["ETag"],
            )  # fmt: skip

        def copy(key: str) -> str:
            answer = self._client.copy_object(Bucket=self.bucket, Key=key, CopySource=origin)
            return answer["CopyObjectResult"]["ETag"].strip('"')

        return self._ask(f"copying {self.uri}/{source}", copy, self._at(path))

    def _in_parts(self, path: str, parts: Iterable[Q], send: Callable[[Any, Q], str]) -> str:
        """Put an object whose parts are sent by `send(<where they belong>, <part>)`; returns its ETag."""
        what, place = f"writing {self.uri}/{path}", {"Bucket": self.bucket, "Key": self._at(path)}
        ours: Any = self._client
        upload = self._ask(what, lambda place: ours.create_multipart_upload(**place)["UploadId"], place)
        place["UploadId"] = upload
        done = []
        try:
            for number, part in enumerate(parts, start=1):
                etag = self._ask(what, lambda job: send(*job), (place | {"PartNumber": number}, part))
                done.append({"ETag": etag, "PartNumber": number})
            finish = place | {"MultipartUpload": {"Parts": done}}
            etag = self._ask(what, lambda all_of_it: ours.complete_multipart_upload(**all_of_it)["ETag"], finish)
        except BaseException:
            impatient: Any = client(self.settings, timeout_seconds=_ABORT_SECONDS)
            with suppress(*FAULTS):  # what is left behind then, the next run drops
                impatient.abort_multipart_upload(**place)
            raise
        return str(etag).strip('"')

    def drop_uploads(self, which: Callable[[str], bool]) -> None:
        """Abort the unfinished uploads in parts whose path `which` says yes to.

        The whole bucket's are listed: of those below a folder MinIO lists none.
        """
        start, what = f"{self.key}/", f"listing unfinished uploads to s3://{self.bucket}"

        def ask(more: dict[str, str]) -> Any:
            return self._client.list_multipart_uploads(Bucket=self.bucket, **more)  # type: ignore[arg-type]

        for page in self._pages(what, ask, "Uploads", _NEXT_UPLOADS):
            for item in page:
                key, upload = item.get("Key", ""), item.get("UploadId", "")
                if upload and key.startswith(start) and which(key.removeprefix(start)):
                    place: dict[str, Any] = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
                    what = f"dropping parts of s3://{self.bucket}/{key}"
                    self._ask(what, lambda place: self._client.abort_multipart_upload(**place), place)

    def upload(self, path: str, file: Path, content_type: str) -> None:
        """Put a file, in parts when it is large, and read it back. Raises ServiceError when it arrived wrong."""

        def put(key: str) -> None:
            try:
                self._client.upload_file(str(file), self.bucket, key, ExtraArgs={"ContentType": content_type})
            except S3UploadFailedError as fault:  # hides what happened
                raise fault.__context__ or fault from None

        self._ask(f"writing {self.uri}/{path}", put, self._at(path))
        with file.open("rb") as content:
            self.require(path, file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects, a thousand per request; those that are gone already count as deleted."""
        for some in batches(paths, _DELETED_AT_ONCE):
            keys: list[ObjectIdentifierTypeDef] = [{"Key": self._at(path)} for path in some]
            answer = self._ask(
                f"deleting {self.uri}/{some[0]}",
                lambda keys: self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}),
                keys,
            )
            if faults := answer.get("Errors"):
                code, key = faults[0].get("Code", ""), faults[0].get("Key", "")
                raise explain_code(code, faults[0].get("Message", ""), f"deleting s3://{self.bucket}/{key}")

    def find_manifest(self) -> Manifest | None:
        """The manifest, or None when there is none, which means that nothing is done here.

        Raises InputError when there is one that can't be read as such.
        """
        text = self.read(MANIFEST, MANIFEST_BYTES)
        return None if text is None else parse_manifest(text, f"{self.uri}/{MANIFEST}")

    def _ask(self, what: str, request: Callable[[Q], R], argument: Q) -> R:
        """`request(argument)`, again after growing pauses where that may help; its last failure in words.

        A store that has never answered is not waited for: its address is more likely wrong than its network. By hand:
        tenacity takes 50 ms to import, in each run that asks a store, and saves six lines.
        """
        for pause in (*_PAUSES_SECONDS, None):
            try:
                answer = request(argument)
            except KeyError as fault:
                raise ServiceError(
                    f"{what}: the store's answer has no {fault.args[0]}", next_step=_CHECK_STORE
                ) from fault
            except FAULTS as fault:
                error = explain(fault, what, self.settings.s3_endpoint_url)
                passing = isinstance(error, ServiceError) and (self._answered or not isinstance(fault, NO_CONTACT))
                if pause is None or not passing:
                    raise error from fault
                time.sleep(pause * random.uniform(0.5, 1.5))
            else:
                self._answered = True
                return answer
        raise AssertionError("unreachable")


def _md5(data: bytes | bytearray) -> _Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _listed(item: dict[str, Any], start: str, what: str) -> Listed:
    """Return one entry of a listing. Raises ServiceError if it is malformed: stores may send anything."""
    key, size = item.get("Key"), item.get("Size")
    if not isinstance(key, str) or not key.startswith(start) or not isinstance(size, int) or not 0 <= size <= _LARGEST:
        raise ServiceError(
            f"{what}: the store lists what can't be there: {str(key)!r}, {size} bytes", next_step=_CHECK_STORE
        )
    return Listed(key.removeprefix(start), size, item.get("ETag", "").strip('"'))


def _endless(what: str, why: str) -> ServiceError:
    return ServiceError(f"{what}: the store's list has no end: {why}", next_step=_CHECK_STORE)


def _bounded(body: StreamingBody, most: int, name: str) -> bytes:
    """A body's content. Raises InputError when it has more than `most` bytes."""
    content = b"".join(_pieces(body, most + 1))
    if len(content) > most:
        raise InputError(f"{name} has more than {most:,} bytes: it is not what larder puts there", next_step=_RENEW)
    return content


def _pieces(body: StreamingBody, most: int | None) -> Iterator[bytes]:
    """A body's content piece by piece, to its end or up to `most` bytes. An end before the announced one is a fault."""
    left = most
    while left is None or left > 0:
        piece = body.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece


def _require_range(given: str, offset: int, what: str) -> None:
    """Raise ServiceError unless a Content-Range begins at `offset`."""
    if not re.match(rf"bytes {offset}-", given):
        raise ServiceError(
            f"{what}: the store was asked for bytes from {offset:,} on, and sends {given or 'the whole'!r}",
            next_step=_CHECK_STORE,
        )


def _copy(body: StreamingBody, place: Path | None, most: int | None = None) -> tuple[int, str]:
    """Length and sha256 of a body, which is written to the file `place`, if any. It is cut off after `most` bytes."""
    length, digest, room = 0, hashlib.sha256(), 0
    with Path(place or os.devnull).open("wb") as file:
        for chunk in _pieces(body, None if most is None else most + 1):
            if place is not None and length >= room:  # the length is the store's word, if there is any
                require_space(place.parent, _SPARE_BYTES, f"{place.name}, which a store sends,")
                room = length + _SPARE_BYTES // 2
            length += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    return length, digest.hexdigest()
