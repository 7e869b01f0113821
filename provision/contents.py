"""What a bucket holds beside its objects: older versions, delete markers, unfinished uploads and segments.

Swift shows versions in its own API, and keeps the parts of multipart uploads in a container beside the bucket. Ceph's
RGW shows versions and unfinished uploads only in its S3 API, for which the stack's S3 keys are needed. Its Swift API
counts them as objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

from openstack import exceptions as sdk

from larder.errors import LarderError, ServiceError
from larder.progress import format_amount
from larder.terminal import join_lines
from provision import answers, credentials
from provision.cloud_errors import RUN_AGAIN
from provision.s3 import MAX_UPLOADS_MEASURED, NOT_IN_PATH, S3Client, Upload, can_be_in_path
from provision.stack import Stack

T = TypeVar("T")
SEGMENTS = "+segments"
"""What Swift's S3 API appends to a bucket's name for the container with the parts of uploads."""
VERSIONS_HEADER = "X-Versions-Enabled"
MARKER_TYPE = "application/x-deleted"
"""The type of a delete marker in Swift's list of versions."""
PER_CALL = 1000
MAX_COUNTED = 100_000
"""Versions that `status` looks at, at most, since it has to list them."""


@dataclass(frozen=True)
class Contents:
    """Numbers and bytes of what a bucket holds.

    If all its versions are listed, objects are the latest ones. Else their number and bytes are what the store counts:
    with Ceph's gateway that includes older versions and the parts of unfinished uploads, but no delete markers.
    """

    objects: int = 0
    bytes: int = 0
    versions: int = 0
    """Older ones, and those hidden by a delete marker."""
    version_bytes: int = 0
    markers: int = 0
    uploads: int = 0
    upload_bytes: int = 0
    segments: int = 0
    segment_bytes: int = 0
    is_partial: bool = False
    """Whether only the first MAX_COUNTED versions are counted, the latest ones included."""
    unknown: str = ""
    """Why there may be more."""

    def __str__(self) -> str:
        texts = [f"{self.objects} objects, {self.bytes} bytes"]
        if self.versions or self.markers:
            many = "at least " if self.is_partial else ""
            texts.append(
                f"{many}{format_amount(self.versions, 'older versions')} with {self.version_bytes} bytes, "
                f"{format_amount(self.markers, 'delete markers')}"
            )
        if self.uploads:
            texts.append(f"{format_amount(self.uploads, 'unfinished uploads')} with {self.upload_bytes} bytes")
        if self.segments:
            texts.append(f"{format_amount(self.segments, 'segments')} of uploads with {self.segment_bytes} bytes")
        return "; ".join([*texts, *([self.unknown] if self.unknown else [])])


def s3_client(stack: Stack, bucket: str) -> S3Client | None:
    """Return a client with this stack's S3 keys, or None if it has none."""
    if stack.declaration.credentials is None or not stack.clouds.objects.offers("identity"):
        return None
    keys = credentials.find(stack)
    if keys is None:
        return None
    session = stack.clouds.objects.connection.session
    return S3Client(session, credentials.s3_endpoint(stack), keys.access, keys.secret, bucket)


def read_contents(stack: Stack, api: Any, bucket: str, headers: Any) -> Contents:
    """Return what a bucket holds.

    Args:
        stack: The stack.
        api: The client for Swift.
        bucket: The bucket's name.
        headers: Swift's headers for the bucket.
    """
    objects, size = read_counts(bucket, headers)
    segments = head(api, bucket + SEGMENTS)
    seen = Contents(objects, size)
    if segments is not None:
        number, amount = read_counts(bucket + SEGMENTS, segments)
        seen = replace(seen, segments=number, segment_bytes=amount)
    is_swift_versioned = VERSIONS_HEADER in headers
    if is_swift_versioned:
        seen = _count(seen, list_swift_versions(api, bucket, PER_CALL * 10))
    try:
        client = s3_client(stack, bucket)
        if client is None:
            return seen
        if not is_swift_versioned and client.is_versioned():
            pages = client.list_versions()
            seen = _count(seen, ((item.is_latest, item.is_marker, item.bytes) for page in pages for item in page))
        uploads = [item for page in client.list_uploads() for item in page]
        size = sum(map(client.upload_bytes, uploads[:MAX_UPLOADS_MEASURED]))
    except LarderError as error:
        return replace(seen, unknown=f"versions and uploads are unknown, since its S3 API fails: {error.what}")
    return replace(seen, uploads=len(uploads), upload_bytes=size)


def read_counts(name: str, headers: Any) -> tuple[int, int]:
    """Return a container's number of objects, and their bytes."""
    objects, size = (
        answers.validate_whole_number(headers.get(f"X-Container-{what}", 0), f"{what} of the bucket {name}")
        for what in ("Object-Count", "Bytes-Used")
    )
    return objects, size


def head(api: Any, name: str) -> Any:
    """Return a container's headers, or None if it doesn't exist."""
    answer = api.head(f"/{quote(name)}")
    if answer.status_code == 404:
        return None
    sdk.raise_from_response(answer)
    return answer.headers


def _count(seen: Contents, items: Iterator[tuple[bool, bool, int]]) -> Contents:
    """Add versions to the counts: whether each is the latest, whether it is a delete marker, and its bytes."""
    objects = size = versions = version_bytes = markers = 0
    for is_latest, is_marker, item_bytes in islice(items, MAX_COUNTED):
        if is_marker:
            markers += 1
        elif is_latest:
            objects, size = objects + 1, size + item_bytes
        else:
            versions, version_bytes = versions + 1, version_bytes + item_bytes
    is_partial = next(items, None) is not None
    if not is_partial:
        seen = replace(seen, objects=objects, bytes=size)
    return replace(seen, versions=versions, version_bytes=version_bytes, markers=markers, is_partial=is_partial)


def list_swift_versions(api: Any, bucket: str, limit: int) -> Iterator[tuple[bool, bool, int]]:
    """Yield for each version of a Swift container whether it is the latest, whether a delete marker, and its bytes."""
    place: dict[str, str] = {}
    while items := _swift_versions(api, bucket, limit, place):
        for item in items:
            yield bool(item["is_latest"]), _is_marker(item), int(item["bytes"])
        place = {"marker": items[-1]["name"], "version_marker": items[-1]["version_id"]}


def _is_marker(item: Any) -> bool:
    return str(item["content_type"]).startswith(MARKER_TYPE)


def _swift_versions(api: Any, bucket: str, limit: int, place: dict[str, str]) -> list[Any]:
    answer = api.get(f"/{quote(bucket)}", params={"format": "json", "versions": "", "limit": limit, **place})
    sdk.raise_from_response(answer)
    items: list[Any] = answer.json() if answer.status_code == 200 else []
    return items


def empty_by_s3(stack: Stack, bucket: str) -> int:
    """Delete versions, markers and unfinished uploads by the S3 API, if the stack has keys. Return their number."""
    client = s3_client(stack, bucket)
    if client is None:
        return 0
    try:
        versioned = client.is_versioned()
    except ServiceError as error:
        stack.report("warning", f"what only the S3 API of the bucket {bucket} shows may stay: {error.what}")
        return 0
    return (delete_versions(client) if versioned else 0) + abort_uploads(client)


def delete_versions(client: S3Client) -> int:
    """Delete all versions and delete markers of a bucket, and return their number."""
    return _delete_pages(client.bucket, "versions", client.list_versions, client.delete_versions)


def abort_uploads(client: S3Client) -> int:
    """Delete all unfinished uploads of a bucket, and return their number."""

    def abort(uploads: Sequence[Upload]) -> list[str]:
        return [failure for upload in uploads if (failure := client.abort(upload))]

    return _delete_pages(client.bucket, "unfinished uploads", client.list_uploads, abort)


def _delete_pages(
    bucket: str,
    what: str,
    list_pages: Callable[[], Iterator[list[T]]],
    delete: Callable[[Sequence[T]], list[str]],
) -> int:
    """Delete the first page of a listing until it is empty, and return the number of items."""
    deleted, before = 0, None
    while page := next((page for page in list_pages() if page), None):
        if page == before:
            raise _stays_error(bucket, f"{len(page)} {what}")
        raise_failures(bucket, what, delete(page))
        deleted, before = deleted + len(page), page
    return deleted


def _stays_error(bucket: str, what: str) -> ServiceError:
    return ServiceError(f"bucket {bucket}: {what} stay although they were deleted", next_step=RUN_AGAIN)


def empty_by_swift_versions(stack: Stack, api: Any, bucket: str) -> int:
    """Delete all versions of a Swift container, and return their number."""

    def list_pages() -> Iterator[list[tuple[str, str]]]:
        yield [(str(item["name"]), str(item["version_id"])) for item in _swift_versions(api, bucket, PER_CALL, {})]

    def delete(versions: Sequence[tuple[str, str]]) -> list[str]:
        failures = (delete_object(api, bucket, name, {"version-id": id}) for name, id in versions)
        return [failure for failure in failures if failure]

    return _delete_pages(bucket, "versions", list_pages, delete)


def delete_object(api: Any, bucket: str, name: str, params: dict[str, str] | None = None) -> str:
    """Delete one object. Return why that failed, or ""."""
    if not can_be_in_path(name):
        return f"{name}: {NOT_IN_PATH}"
    options = {"params": params} if params else {}
    status = api.delete(f"/{quote(bucket)}/{quote(name)}", **options).status_code
    return "" if status in (204, 404) else f"{name}: {status}"


def raise_failures(bucket: str, what: str, failures: Sequence[str]) -> None:
    """Raise ServiceError if some objects could not be deleted."""
    if failures:
        shown = (f"  - {failure}" for failure in failures[:10])
        raise ServiceError(
            join_lines(f"bucket {bucket}: {len(failures)} {what} could not be deleted:", *shown),
            next_step=f"see their causes above; {RUN_AGAIN}",
        )
