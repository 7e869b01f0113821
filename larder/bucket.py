"""List, read, write and delete objects in one folder of a bucket."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from botocore.exceptions import ClientError

from larder.batches import batches
from larder.contract import CLASSES, MANIFEST, MAX_MANIFEST_BYTES, RUN, Manifest, parse_manifest
from larder.errors import ServiceError
from larder.fingerprint import CUTOFF_BYTES, PART_BYTES
from larder.next_step import StageRun
from larder.s3_bodies import copy_body, read_bounded, read_piece_into, read_pieces, require_range
from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_code
from larder.s3_requests import CHECK_STORE, S3Requests
from larder.store import BucketSettings, make_client

if TYPE_CHECKING:
    from hashlib import _Hash

    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef, ObjectIdentifierTypeDef, PutObjectOutputTypeDef

Q = TypeVar("Q")
R = TypeVar("R")

_ABORT_SECONDS = 2.0
"""Timeout for aborting an upload. It is short, since users may interrupt a run because the store doesn't answer."""
_MAX_KEYS_PER_DELETE = 1000  # the protocol's limit
_PAST_THE_END = {"InvalidRange", "416"}
_OTHER_CONTENT = {"PreconditionFailed", "412"}
_BINARY = "application/octet-stream"
_JSON = "application/json"
MAX_READ_BYTES = 64 << 20
"""Maximum size of an object that is read into memory, such as a manifest or an image."""
_PLAIN_ETAG = re.compile(r'"([^"\s]+)"')
_MAX_INT64 = (1 << 63) - 1
_NEXT_OBJECTS = {"ContinuationToken": "NextContinuationToken"}
_NEXT_UPLOADS = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
_UNKNOWN_CHECKSUM = {"NotImplemented", "InvalidArgument", "InvalidRequest"}
"""Error codes of stores that support no checksum but MD5."""


class ListedObject(NamedTuple):
    """An object in a listing. `path` is relative to the folder, `etag` has no quotes."""

    path: str
    bytes: int
    etag: str


class BucketPrefix:
    """The folder `[<prefix>/]<name>` of a bucket, or the whole bucket if both are empty.

    All paths are relative to the folder. Create it in the process that uses it: its client must not be forked.

    Every method raises ConfigurationError if the store refuses a request, and ServiceError if the store fails.
    """

    def __init__(self, settings: BucketSettings, name: str, client: S3Client | None = None) -> None:
        """Use the folder `name` of the settings' bucket, with a client of this process; None makes one."""
        self.settings = settings
        self.bucket = settings.bucket
        self.key = "/".join(part for part in (settings.prefix, name) if part)
        self.uri = f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"
        self._start = f"{self.key}/" if self.key else ""
        self._client = client or make_client(settings)
        self._requests = S3Requests(settings.s3_endpoint_url, unsigned=settings.unsigned)
        self._supports_checksums = True

    def _key_of(self, path: str) -> str:
        """Return the key of an object."""
        return self._start + path

    def list(self, below: str = "") -> Iterator[ListedObject]:
        """Yield every object below the subfolder `below`, with one request per thousand objects."""
        start = self._start
        prefix, what = (f"{start}{below}/" if below else start), f"listing {self.uri}/{below}"

        def request(continuation: dict[str, str]) -> Any:
            return self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **continuation)  # type: ignore[arg-type]

        for page in self._requests.pages(what, request, "Contents", _NEXT_OBJECTS):
            for item in page:
                yield _parse_listed(item, start, what)

    def read(self, path: str, max_bytes: int = MAX_READ_BYTES) -> bytes | None:
        """Return the content of an object, or None if it doesn't exist.

        Raises:
            InputError: If the object has more than `max_bytes` bytes.
        """
        return self.with_body(path, lambda body: read_bounded(body, max_bytes, f"{self.uri}/{path}"))

    def read_range(self, path: str, offset: int, length: int, etag: str = "") -> bytes | None:
        """Read a byte range of an object.

        Args:
            path: The object.
            offset: Position of the first byte.
            length: Number of bytes.
            etag: If given, the object must have this ETag.

        Returns:
            The bytes; fewer than `length` if the object ends earlier. None if there is no such object, or if its ETag
            differs from `etag`.
        """
        what = f"reading {self.uri}/{path}"

        def get(key: str) -> bytes | None:
            return self._with_range(
                key, offset, length, etag, what, lambda body, _: b"".join(read_pieces(body, length)), b""
            )

        return self._requests.send(what, get, self._key_of(path))

    def read_into(self, path: str, offset: int, buffer: memoryview, etag: str = "") -> tuple[int, str] | None:
        """Fill a buffer with the bytes of an object. If the transfer breaks, go on at the byte where it broke.

        All bytes are of one version of the object, if the store sends ETags.

        Args:
            path: The object.
            offset: Position of the first byte.
            buffer: Writable memory for the bytes.
            etag: If given, the object must have this ETag.

        Returns:
            Number of bytes, fewer than `len(buffer)` if the object ends earlier, and the object's ETag, empty if the
            store doesn't send it. None if there is no such object, or if its ETag differs from `etag`.
        """
        what, done = f"reading {self.uri}/{path}", 0

        def fill(body: StreamingBody, found: str) -> int:
            nonlocal done, etag
            etag = etag or found
            while done < len(buffer) and (count := read_piece_into(body, buffer[done:])):
                done += count
            return done

        def get(key: str) -> int | None:
            if done == len(buffer):
                return done  # there is no range of no bytes
            return self._with_range(key, offset + done, len(buffer) - done, etag, what, fill, done)

        got = self._requests.send(what, get, self._key_of(path))
        return None if got is None else (got, etag)

    def _with_range(
        self,
        key: str,
        offset: int,
        length: int,
        etag: str,
        what: str,
        use: Callable[[StreamingBody, str], R],
        past_end: R,
    ) -> R | None:
        """Return `use(body, etag)` for a byte range of an object; None if it is missing or changed, or `past_end`."""
        conditions = {"IfMatch": f'"{etag}"'} if etag else {}
        byte_range = f"bytes={offset}-{offset + length - 1}"
        try:
            response = self._client.get_object(Bucket=self.bucket, Key=key, Range=byte_range, **conditions)  # type: ignore[arg-type]
            with response["Body"] as body:
                require_range(response.get("ContentRange", ""), offset, what)
                return use(body, _plain_etag(response.get("ETag", "")))
        except ClientError as fault:
            if code_of(fault) in ABSENT_CODES or (etag and code_of(fault) in _OTHER_CONTENT):
                return None
            if code_of(fault) in _PAST_THE_END:
                return past_end
            raise

    def read_start(self, path: str, max_bytes: int) -> bytes | None:
        """Return the first `max_bytes` bytes of an object, or None if it doesn't exist."""
        return self.with_body(path, lambda body: b"".join(read_pieces(body, max_bytes)))

    def digest(self, path: str, max_bytes: int | None = None) -> tuple[int, str] | None:
        """Read an object and return its length and sha256, or None if it doesn't exist.

        Reading stops after `max_bytes + 1` bytes. Length and digest of a longer object are therefore wrong.
        """
        return self.with_body(path, lambda body: copy_body(body, None, max_bytes))

    def download(self, path: str, target: Path, max_bytes: int | None = None) -> str | None:
        """Write an object's content to the file `target`.

        Args:
            path: The object.
            target: The file to write.
            max_bytes: Expected maximum length in bytes. The download stops one byte later.

        Returns:
            The sha256 of the content, or None if the object doesn't exist. The digest of an object with more than
            `max_bytes` bytes is wrong.
        """
        length_and_digest = self.with_body(path, lambda body: copy_body(body, target, max_bytes))
        return length_and_digest and length_and_digest[1]

    def with_body(self, path: str, use: Callable[[StreamingBody], R]) -> R | None:
        """Return `use(body)` for an object's body, or None if the object doesn't exist.

        If the transfer fails, `use` is called again with a new body.
        """

        def get(key: str) -> R | None:
            try:
                with self._client.get_object(Bucket=self.bucket, Key=key)["Body"] as body:
                    return use(body)
            except ClientError as fault:
                if code_of(fault) in ABSENT_CODES:
                    return None
                raise

        return self._requests.send(f"reading {self.uri}/{path}", get, self._key_of(path))

    def write(self, path: str, data: bytes, content_type: str = _BINARY) -> str:
        """Write an object and return its ETag. The store rejects content whose MD5 differs from the one sent.

        Args:
            path: The object.
            data: Its content.
            content_type: Media type that the store records.
        """
        return self._requests.send(
            f"writing {self.uri}/{path}", lambda key: self._put(key, data, content_type)["ETag"], self._key_of(path)
        ).strip('"')

    def write_confirmed(self, path: str, data: bytes | bytearray) -> tuple[str, bool]:
        """Write an object, and return whether the store has confirmed its content.

        The store is asked to confirm a CRC32C, which takes a tenth of the time of a sha256 on either side. If the store
        doesn't support it, later writes skip it, and the ETag is compared with the content's MD5.

        Returns:
            The ETag, and whether the CRC32C or the ETag confirms the content.
        """
        from crc32c import crc32c  # imported here because only stages that pack into a store have it

        expected = b64encode(crc32c(data).to_bytes(4, "big")).decode()

        def put(key: str) -> PutObjectOutputTypeDef:
            if self._supports_checksums:
                try:
                    return self._put(key, data, _BINARY, expected)
                except ClientError as fault:
                    if code_of(fault) not in _UNKNOWN_CHECKSUM:
                        raise
            response = self._put(key, data, _BINARY)
            self._supports_checksums = False  # the store accepted the same object without one
            return response

        response = self._requests.send(f"writing {self.uri}/{path}", put, self._key_of(path))
        etag = response["ETag"].strip('"')
        return etag, response.get("ChecksumCRC32C") == expected or etag == _md5(data).hexdigest()

    def verify_object(self, path: str, length: int, sha256: str) -> None:
        """Read an object back and compare it.

        Args:
            path: The object.
            length: Expected length in bytes.
            sha256: Expected digest, in hexadecimal.

        Raises:
            ServiceError: If the object has another length or digest.
        """
        if self.digest(path, length) != (length, sha256):
            raise ServiceError(
                f"{self.uri}/{path}: the store's bytes differ from those that were sent",
                next_step=f"run {StageRun('s3', 'check')}, then this again: it resumes",
            )

    def _put(self, key: str, data: bytes | bytearray, content_type: str, crc: str = "") -> PutObjectOutputTypeDef:
        """Write an object with a checksum that the store verifies: the base64 CRC32C `crc`, or the MD5 if empty."""
        body = cast(bytes, data)  # botocore accepts a bytearray, too
        if crc:
            return self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, ChecksumCRC32C=crc
            )
        return self._client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=body,
            ContentType=content_type,
            ContentMD5=b64encode(_md5(data).digest()).decode(),
        )

    def write_parts(self, path: str, parts: Iterable[bytes | bytearray]) -> str:
        """Write an object in parts, sending each part as soon as `parts` yields it.

        If writing fails, the upload is aborted, so that no parts stay in the store unless it has stopped answering.

        Returns:
            The ETag.
        """
        return self._write_in_parts(
            path, parts, lambda target, part: self._client.upload_part(**target, Body=cast(bytes, part))["ETag"]
        )

    def copy(self, source: str, path: str, size: int) -> str:
        """Copy an object within the store.

        A large object is copied in the same parts in which larder uploads it, since the ETag depends on them.

        Args:
            source: The object to copy.
            path: The new object.
            size: Length of the object in bytes.

        Returns:
            The ETag of the copy.
        """
        origin: CopySourceTypeDef = {"Bucket": self.bucket, "Key": self._key_of(source)}
        if size >= CUTOFF_BYTES:
            ranges = (f"bytes={at}-{min(at + PART_BYTES, size) - 1}" for at in range(0, size, PART_BYTES))
            return self._write_in_parts(
                path,
                ranges,
                lambda target, part: self._client.upload_part_copy(**target, CopySource=origin, CopySourceRange=part)[
                    "CopyPartResult"
                ]["ETag"],
            )

        def copy(key: str) -> str:
            response = self._client.copy_object(Bucket=self.bucket, Key=key, CopySource=origin)
            return response["CopyObjectResult"]["ETag"].strip('"')

        return self._requests.send(f"copying {self.uri}/{source}", copy, self._key_of(path))

    def _write_in_parts(self, path: str, parts: Iterable[Q], send: Callable[[Any, Q], str]) -> str:
        """Write an object with a multipart upload and return its ETag.

        `send(target, part)` sends one part; `target` has the bucket, key, upload id and part number.
        """
        what, target = f"writing {self.uri}/{path}", {"Bucket": self.bucket, "Key": self._key_of(path)}
        client: Any = self._client
        upload = self._requests.send(what, lambda target: client.create_multipart_upload(**target)["UploadId"], target)
        target["UploadId"] = upload
        uploaded_parts = []
        try:
            for number, part in enumerate(parts, start=1):
                etag = self._requests.send(what, lambda job: send(*job), (target | {"PartNumber": number}, part))
                uploaded_parts.append({"ETag": etag, "PartNumber": number})
            finish = target | {"MultipartUpload": {"Parts": uploaded_parts}}
            etag = self._requests.send(what, lambda job: client.complete_multipart_upload(**job)["ETag"], finish)
        except BaseException:
            abort_client: Any = make_client(self.settings, timeout_seconds=_ABORT_SECONDS)
            with suppress(*S3_ERRORS):  # the next run drops parts that are left behind
                abort_client.abort_multipart_upload(**target)
            raise
        return str(etag).strip('"')

    def abort_uploads(self, which: Callable[[str], bool]) -> None:
        """Abort the unfinished multipart uploads below the folder for whose path `which` returns True.

        This lists the uploads of the whole bucket, since MinIO lists none for a prefix.
        """
        start, what = f"{self.key}/", f"listing unfinished uploads to s3://{self.bucket}"

        def request(continuation: dict[str, str]) -> Any:
            return self._client.list_multipart_uploads(Bucket=self.bucket, **continuation)  # type: ignore[arg-type]

        for page in self._requests.pages(what, request, "Uploads", _NEXT_UPLOADS):
            for item in page:
                key, upload = item.get("Key", ""), item.get("UploadId", "")
                if upload and key.startswith(start) and which(key.removeprefix(start)):
                    target: dict[str, Any] = {"Bucket": self.bucket, "Key": key, "UploadId": upload}
                    what = f"dropping parts of s3://{self.bucket}/{key}"
                    self._requests.send(what, lambda target: self._client.abort_multipart_upload(**target), target)

    def upload(self, path: str, file: Path, content_type: str) -> None:
        """Upload a file, in parts if it is large, and read it back.

        Raises:
            ServiceError: If the object differs from the file.
        """
        from boto3.exceptions import S3UploadFailedError  # imported here because boto3 takes 90 ms to import

        def put(key: str) -> None:
            try:
                self._client.upload_file(str(file), self.bucket, key, ExtraArgs={"ContentType": content_type})
            except S3UploadFailedError as fault:  # boto3 wraps the error that says what happened
                raise fault.__context__ or fault from None

        self._requests.send(f"writing {self.uri}/{path}", put, self._key_of(path))
        with file.open("rb") as content:
            self.verify_object(path, file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects, a thousand per request. Objects that don't exist count as deleted."""
        for batch in batches(paths, _MAX_KEYS_PER_DELETE):
            keys: list[ObjectIdentifierTypeDef] = [{"Key": self._key_of(path)} for path in batch]
            response = self._requests.send(
                f"deleting {self.uri}/{batch[0]}",
                lambda keys: self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}),
                keys,
            )
            if faults := response.get("Errors"):
                code, key = faults[0].get("Code", ""), faults[0].get("Key", "")
                raise explain_code(code, faults[0].get("Message", ""), f"deleting s3://{self.bucket}/{key}")

    def write_manifest(self, manifest: Manifest, run: Mapping[str, Any]) -> None:
        """Write run.json and classes.json, and the manifest last."""
        self.write(RUN, (json.dumps(run, indent=2) + "\n").encode(), _JSON)
        self.write(CLASSES, manifest.classes_json().encode(), _JSON)
        self.write(MANIFEST, manifest.to_json().encode(), _JSON)

    def find_manifest(self) -> Manifest | None:
        """Return the folder's manifest, or None if there is none, which means that no finished artifact is there.

        Raises:
            InputError: If the manifest is invalid.
        """
        text = self.read(MANIFEST, MAX_MANIFEST_BYTES)
        return None if text is None else parse_manifest(text, f"{self.uri}/{MANIFEST}")


def _plain_etag(header: str) -> str:
    """Return an ETag without its quotes; empty for one that can't be a condition, such as a weak one."""
    plain = _PLAIN_ETAG.fullmatch(header)
    return plain[1] if plain else ""


def _md5(data: bytes | bytearray) -> _Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _parse_listed(item: dict[str, Any], start: str, what: str) -> ListedObject:
    """Parse one entry of a listing. Raises ServiceError if it is malformed."""
    key, size = item.get("Key"), item.get("Size")
    if (
        not isinstance(key, str)
        or not key.startswith(start)
        or not isinstance(size, int)
        or not 0 <= size <= _MAX_INT64
    ):
        raise ServiceError(
            f"{what}: the store lists an impossible object: {str(key)!r}, {size} bytes", next_step=CHECK_STORE
        )
    return ListedObject(key.removeprefix(start), size, item.get("ETag", "").strip('"'))
