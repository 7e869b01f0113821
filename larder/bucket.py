"""One folder of a bucket: to list, read, write and delete in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from larder.batches import batches
from larder.contract import META, Manifest, parse_manifest
from larder.s3_faults import ABSENT, FAULTS, code_of, explain, explain_code
from larder.store import BucketSettings, client

R = TypeVar("R")

ATTEMPTS = 5
"""Tries of one request; botocore's pauses between them grow to some seconds."""
_DELETED_AT_ONCE = 1000  # the protocol's limit
_CHUNK_BYTES = 1 << 20


class Listed(NamedTuple):
    """An object as a listing shows it; `path` is relative to the folder, `etag` without quotes."""

    path: str
    bytes: int
    etag: str


class Folder:
    """One folder of a bucket, `[<prefix>/]<name>`. Paths are relative to it. Open it where it is used: it isn't forked.

    Every method raises ConfigurationError or ServiceError, with the cause, when the store refuses or fails.
    """

    def __init__(self, settings: BucketSettings, name: str) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self.key = "/".join(part for part in (settings.prefix, name) if part)
        self.uri = f"s3://{self.bucket}/{self.key}"
        self._client = client(settings, ATTEMPTS)

    def list(self, below: str = "") -> Iterator[Listed]:
        """Every object below the folder `below`, one request per thousand."""
        start = f"{self.key}/"
        prefix = f"{start}{below}/" if below else start
        with self._explained(f"listing {self.uri}/{below}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield Listed(item["Key"].removeprefix(start), item["Size"], item.get("ETag", "").strip('"'))

    def read(self, path: str) -> bytes | None:
        """The content of an object, or None when there is none."""
        return self._get(path, lambda body: body.read())

    def digest(self, path: str) -> tuple[int, str] | None:
        """Length and sha256 of an object's content, which is read; None when there is none."""
        return self._get(path, lambda body: _copy(body, Path(os.devnull)))

    def download(self, path: str, place: Path) -> str | None:
        """Write an object's content to the file `place`. Returns its sha256, or None when there is no such object."""
        found = self._get(path, lambda body: _copy(body, place))
        return found and found[1]

    def _get(self, path: str, use: Callable[[StreamingBody], R]) -> R | None:
        """What `use` makes of an object's body. It is asked for again when it breaks off."""
        with self._explained(f"reading {self.uri}/{path}"):
            for attempt in range(1, ATTEMPTS + 1):  # botocore's own retries end where the body begins
                try:
                    with self._client.get_object(Bucket=self.bucket, Key=f"{self.key}/{path}")["Body"] as body:
                        return use(body)
                except ClientError as fault:
                    if code_of(fault) in ABSENT:
                        return None
                    raise
                except FAULTS:
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def write(self, path: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Put an object; returns its ETag."""
        with self._explained(f"writing {self.uri}/{path}"):
            answer = self._client.put_object(
                Bucket=self.bucket, Key=f"{self.key}/{path}", Body=data, ContentType=content_type
            )
        return answer["ETag"].strip('"')

    def upload(self, path: str, file: Path, content_type: str) -> None:
        """Put a file, in parts when it is large."""
        with self._explained(f"writing {self.uri}/{path}"):
            try:
                self._client.upload_file(
                    str(file), self.bucket, f"{self.key}/{path}", ExtraArgs={"ContentType": content_type}
                )
            except S3UploadFailedError as fault:
                raise fault.__context__ or fault from None

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects, a thousand per request; those that are gone already count as deleted."""
        for some in batches(paths, _DELETED_AT_ONCE):
            with self._explained(f"deleting {self.uri}/{some[0]}"):
                answer = self._client.delete_objects(
                    Bucket=self.bucket,
                    Delete={"Objects": [{"Key": f"{self.key}/{path}"} for path in some], "Quiet": True},
                )
            if faults := answer.get("Errors"):
                code, key = faults[0].get("Code", ""), faults[0].get("Key", "")
                raise explain_code(code, faults[0].get("Message", ""), f"deleting s3://{self.bucket}/{key}")

    def find_manifest(self) -> Manifest | None:
        """The manifest, or None when there is none, which means that nothing is done here.

        Raises InputError when there is one that can't be read as such.
        """
        text = self.read(f"{META}/manifest.json")
        return None if text is None else parse_manifest(text, f"{self.uri}/{META}/manifest.json")

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as fault:
            raise explain(fault, what, self.settings.s3_endpoint_url) from fault


def _copy(body: StreamingBody, place: Path) -> tuple[int, str]:
    """Length and sha256 of a body, which is written to the file `place`."""
    length, digest = 0, hashlib.sha256()
    with place.open("wb") as file:
        while chunk := body.read(_CHUNK_BYTES):
            length += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    return length, digest.hexdigest()
