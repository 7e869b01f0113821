"""The checks of an endpoint. Each is a function that returns a finding or raises an error with a next step."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple

from botocore.exceptions import ClientError

from larder.bucket import BucketPrefix
from larder.distant.find import find_link
from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.s3_faults import S3_ERRORS, code_of, explain_s3_error
from larder.store import make_client
from services.s3.endpoint import EndpointResponse, request_endpoint
from services.s3.settings import S3Settings

WARN_SKEW_SECONDS = 60
REFUSED_SKEW_SECONDS = 15 * 60
"""Stores refuse requests whose signature is older than this
(https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed)."""

_SMALL_BYTES = 64 << 10  # about an image's size
_PART_BYTES = 5 << 20  # S3's minimum for all parts but the last
_LAST_PART_BYTES = 1 << 10
_READS = 20
_ATTEMPTS = 2
_FOLDER = ""  # the folder itself: some stores keep it after its last object is deleted
_SMALL, _PARTS = "small ä+&.bin", "in parts.bin"  # stores differ most in how they handle such special characters
_DAMAGED = "something between here and the store's disks damages data: don't use the store until it is found"


class Finding(NamedTuple):
    """The result of a passed check. `advice` makes it a warning; `figures` are for JSON output."""

    message: str
    advice: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


class BlockedError(Exception):
    """A check can't run because the named check failed."""


class CheckContext:
    """State that the checks share: clients, and a folder of objects that is deleted at the end."""

    def __init__(self, settings: S3Settings, reporter: Reporter) -> None:
        self.settings = settings
        self.endpoint = settings.s3_endpoint_url
        self.bucket = settings.bucket
        self.client = make_client(settings, _ATTEMPTS)
        self.folder = BucketPrefix(settings, f"_larder-check-{secrets.token_hex(6)}")
        self.content = os.urandom(_SMALL_BYTES)
        self.answer = EndpointResponse(0.0, "", None)
        self.etag = ""
        self.written: set[str] = set()
        """Objects that may exist and must be deleted."""
        self._reporter = reporter

    def key(self, name: str) -> str:
        """Return the key of an object of the checks."""
        return f"{self.folder.key}/{name}"

    @contextmanager
    def map_store_errors(self, what: str) -> Iterator[None]:
        """Translate the store's refusals and failures during `what` into errors."""
        try:
            yield
        except S3_ERRORS as fault:
            raise explain_s3_error(fault, what, self.endpoint) from fault

    def __enter__(self) -> CheckContext:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.written:
                self.folder.delete([*sorted(self.written), _FOLDER])
        except LarderError as error:
            self._reporter.event("left", f"may be left behind: {self.folder.uri}/: {error.what}", uri=self.folder.uri)


def check_reachability(probe: CheckContext) -> Finding:
    """Check that an S3 store answers."""
    probe.answer = request_endpoint(probe.settings)
    milliseconds = probe.answer.seconds * 1000
    server = f" ({probe.answer.server})" if probe.answer.server else ""
    link = find_link(probe.endpoint)
    through = f" through {link.describe()}" if link else ""
    return Finding(
        f"{probe.endpoint or 'AWS'}{server} answers in {milliseconds:.0f} ms{through}",
        figures={"ms": round(milliseconds, 1)},
    )


def check_clock(probe: CheckContext) -> Finding:
    """Check that this machine's clock agrees with the store's."""
    skew = probe.answer.skew_seconds
    if skew is None:
        return Finding("the store's answers carry no date to compare with")
    figures = {"skew_s": round(skew)}
    deviation = abs(skew)
    if deviation < WARN_SKEW_SECONDS:
        return Finding(f"within {max(deviation, 1):.0f} s of the store's", figures=figures)
    direction = "ahead of" if skew > 0 else "behind"
    message = f"this machine's clock is {deviation / 60:.0f} minutes {direction} the store's"
    advice = "set the clock (`timedatectl set-ntp true`)"
    if deviation < REFUSED_SKEW_SECONDS:
        return Finding(f"{message}; at {REFUSED_SKEW_SECONDS // 60} a store refuses all requests", advice, figures)
    raise ConfigurationError(f"{message}: stores refuse all requests at {REFUSED_SKEW_SECONDS // 60}", next_step=advice)


def check_credentials(probe: CheckContext) -> Finding:
    """Check that the store accepts the keys."""
    with probe.map_store_errors("asking for the list of buckets"):
        try:
            answer = probe.client.list_buckets()
        except ClientError as fault:
            if code_of(fault) != "AccessDenied":
                raise
            return Finding("the store accepts the keys, but doesn't let them list all buckets")
    return Finding(f"the store accepts the keys; buckets that it lists: {len(answer['Buckets'])}")


def check_bucket(probe: CheckContext) -> Finding:
    """Check that the bucket exists and may be listed."""
    if not probe.bucket:
        raise ConfigurationError("S3_BUCKET is not set", next_step=f"set it, then run {StageRun('s3', 'bucket')}")
    with probe.map_store_errors(f"listing s3://{probe.bucket}"):
        probe.client.list_objects_v2(Bucket=probe.bucket, MaxKeys=1)
    return Finding(f"{probe.bucket} exists and can be listed")


def check_path_style(probe: CheckContext) -> Finding:
    """Check that the store accepts path-style addresses, which larder uses for all stores but AWS."""
    name = probe.bucket or "larder-no-such-bucket"
    example = f"{probe.client.meta.endpoint_url}/{name}/"
    if _can_list(probe, name, "path"):
        return Finding(f"addresses like {example} work")
    if _can_list(probe, name, "virtual"):
        raise ConfigurationError(
            f"the store requires the bucket in the host name and rejects {example}",
            next_step="ask its operator for an address that takes path style, and set S3_ENDPOINT_URL to it",
        )
    raise BlockedError("bucket")


def _can_list(probe: CheckContext, name: str, style: Literal["path", "virtual"]) -> bool:
    """Return whether the store lists the bucket in this addressing style. In a wrong style, it lists something else."""
    try:
        return make_client(probe.settings, 1, style).list_objects_v2(Bucket=name, MaxKeys=1).get("Name") == name
    except S3_ERRORS:
        return False


def check_write(probe: CheckContext) -> Finding:
    """Check that an object can be written."""
    probe.written.add(_SMALL)
    try:
        with _defer_signals():
            probe.etag = probe.folder.write(_SMALL, probe.content)
    except ConfigurationError:  # the store refused; after other failures, the object may exist
        probe.written.clear()
        raise
    return Finding(f"put {format_amount(_SMALL_BYTES, 'B')}")


def check_read(probe: CheckContext) -> Finding:
    """Check that the object is read back unchanged."""
    _require_same_content(probe.folder.read(_SMALL), probe.content, f"{probe.folder.uri}/{_SMALL}")
    return Finding("the same bytes come back")


def check_list(probe: CheckContext) -> Finding:
    """Check that a listing shows the object at once."""
    sizes = {item.path: item.bytes for item in probe.folder.list()}
    if sizes != {_SMALL: _SMALL_BYTES}:
        raise ServiceError(
            f"a listing of {probe.folder.uri}/ shows {sizes or 'nothing'} after putting {_SMALL!r} of {_SMALL_BYTES} B",
            next_step="larder needs a store whose listings are up to date (AWS's, Ceph's and MinIO's are): ask its "
            "operator whether a cache stands in front of it",
        )
    return Finding("a listing shows it at once, with its size")


def check_ranges(probe: CheckContext) -> Finding:
    """Check range requests."""
    first, last = 1000, 20_999
    with probe.map_store_errors(f"reading a range of {probe.folder.uri}/{_SMALL}"):
        response = probe.client.get_object(Bucket=probe.bucket, Key=probe.key(_SMALL), Range=f"bytes={first}-{last}")
        data = response["Body"].read()
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    if status != 206:
        raise ServiceError(
            f"asked for bytes {first} to {last}, the store answers {status} and {len(data)} B instead of 206",
            next_step="larder reads shards by ranges: use a store, or a proxy, that serves them",
        )
    _require_same_content(
        data, probe.content[first : last + 1], f"bytes {first} to {last} of {probe.folder.uri}/{_SMALL}"
    )
    return Finding("206, and just the bytes that were requested")


def measure_latency(probe: CheckContext) -> Finding:
    """Measure the latency of sequential reads of a small object."""
    times = []
    with probe.map_store_errors(f"reading {probe.folder.uri}/{_SMALL}"):
        for _ in range(_READS):
            begin = time.perf_counter()
            probe.client.get_object(Bucket=probe.bucket, Key=probe.key(_SMALL))["Body"].read()
            times.append(1000 * (time.perf_counter() - begin))
    median, maximum = statistics.median(times), max(times)
    return Finding(
        f"{_READS} reads of {format_amount(_SMALL_BYTES, 'B')}, one by one: median {median:.1f} ms, slowest "
        f"{maximum:.1f} ms",
        figures={"median_ms": round(median, 2), "max_ms": round(maximum, 2), "reads": _READS, "bytes": _SMALL_BYTES},
    )


def check_etags(probe: CheckContext) -> Finding:
    """Check whether an ETag is the MD5 of the content."""
    if probe.etag == hashlib.md5(probe.content, usedforsecurity=False).hexdigest():
        return Finding("an ETag is the MD5 of the content", figures={"md5": True})
    return Finding(
        f"an ETag is not the MD5 of the content ({probe.etag!r}), as where the store encrypts",
        "verify loads with LARDER_VERIFY_REMOTE=read, or list, which compares only sizes",
        {"md5": False},
    )


def check_multipart(probe: CheckContext) -> Finding:
    """Check multipart uploads."""
    parts = (os.urandom(_PART_BYTES), os.urandom(_LAST_PART_BYTES))
    target = {"Bucket": probe.bucket, "Key": probe.key(_PARTS)}
    store: Any = probe.client
    probe.written.add(_PARTS)
    with probe.map_store_errors(f"writing {probe.folder.uri}/{_PARTS} in two parts"):
        upload = ""
        try:
            with _defer_signals():
                upload = target["UploadId"] = store.create_multipart_upload(**target)["UploadId"]
            uploaded_parts = []
            for number, part in enumerate(parts, 1):
                with _defer_signals():
                    response = store.upload_part(**target, PartNumber=number, Body=part)
                uploaded_parts.append({"PartNumber": number, "ETag": response["ETag"]})
            with _defer_signals():
                store.complete_multipart_upload(**target, MultipartUpload={"Parts": uploaded_parts})
        except BaseException:  # unfinished parts cost money, and listings don't show them
            with suppress(*S3_ERRORS):  # the first error says more
                if upload:
                    store.abort_multipart_upload(**target)
            raise
    _require_same_content(probe.folder.read(_PARTS), b"".join(parts), f"{probe.folder.uri}/{_PARTS}")
    return Finding(f"{format_amount(_PART_BYTES, 'B')} and {format_amount(_LAST_PART_BYTES, 'B')} became one object")


def check_delete(probe: CheckContext) -> Finding:
    """Check that deleted objects are gone."""
    probe.folder.delete([*sorted(probe.written), _FOLDER])
    if left := [item.path for item in probe.folder.list()]:
        raise ServiceError(
            f"{probe.folder.uri}/ still shows {left} after they were deleted",
            next_step="ask the store's operator whether the bucket keeps objects (retention, a lock), then remove them",
        )
    probe.written.clear()
    return Finding("deleted objects are gone")


@contextmanager
def _defer_signals() -> Iterator[None]:
    """Delay a signal until a write request is answered; a second signal interrupts at once.

    Otherwise the store could still execute an abandoned request after the clean-up.
    """
    delayed: list[int] = []

    def delay_signal(number: int, _: object) -> None:
        delayed.append(number)
        if len(delayed) > 1:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, delay_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if delayed:
            raise KeyboardInterrupt


def _require_same_content(content: bytes | None, expected: bytes, what: str) -> None:
    if content is None:
        raise ServiceError(
            f"{what} was written, but is missing", next_step="ask the store's operator why objects vanish"
        )
    if content != expected:
        raise ServiceError(
            f"{what} came back with other content ({len(content)} of {len(expected)} B)", next_step=_DAMAGED
        )


class StoreCheck(NamedTuple):
    """A check; it is skipped if one of the checks in `requires` failed."""

    name: str
    requires: tuple[str, ...]
    run: Callable[[CheckContext], Finding]


CHECKS = (
    StoreCheck("reachability", (), check_reachability),
    StoreCheck("clock", ("reachability",), check_clock),
    StoreCheck("credentials", ("reachability",), check_credentials),
    StoreCheck("bucket", ("credentials",), check_bucket),
    StoreCheck("path style", ("credentials",), check_path_style),
    StoreCheck("write", ("bucket",), check_write),
    StoreCheck("read", ("write",), check_read),
    StoreCheck("list", ("write",), check_list),
    StoreCheck("ranges", ("read",), check_ranges),
    StoreCheck("latency", ("read",), measure_latency),
    StoreCheck("ETags", ("write",), check_etags),
    StoreCheck("multipart", ("write",), check_multipart),
    StoreCheck("delete", ("write",), check_delete),
)
