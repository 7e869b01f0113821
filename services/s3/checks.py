"""The checks of an endpoint, one function each: what it found, or an error with its next step."""

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

from larder.bucket import Folder
from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.s3_faults import FAULTS, code_of, explain
from larder.store import client
from services.s3.reach import Answer, first_answer
from services.s3.settings import S3Settings

WARN_SKEW_SECONDS = 60
REFUSED_SKEW_SECONDS = 15 * 60
"""Stores refuse requests that were signed longer ago than this
(https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed)."""

_SMALL_BYTES = 64 << 10  # about an image's size
_PART_BYTES = 5 << 20  # the smallest that a part may be that isn't the last
_LAST_PART_BYTES = 1 << 10
_READS = 20
_ATTEMPTS = 2
_SMALL, _PARTS = "small ä+&.bin", "in parts.bin"  # stores differ most in how they take a name like the first
_DAMAGED = "something between here and its disks damages data: don't use it before that is found"


class Finding(NamedTuple):
    """What a check found that is well, or with `advice`, that could be better; `figures` are for machines."""

    message: str
    advice: str = ""
    figures: dict[str, Any] = {}  # noqa: RUF012  (never changed)


_FOLDER = ""
"""The folder itself, which some stores keep when its last object goes."""


class Blocked(Exception):
    """A check can't tell anything since the one that it names failed."""


class Probe:
    """What the checks share: clients, and a folder of objects that goes when the checks end."""

    def __init__(self, settings: S3Settings, reporter: Reporter) -> None:
        self.settings = settings
        self.endpoint = settings.s3_endpoint_url
        self.bucket = settings.bucket
        self.client = client(settings, _ATTEMPTS)
        self.folder = Folder(settings, f"_larder-check-{secrets.token_hex(6)}")
        self.content = os.urandom(_SMALL_BYTES)
        self.answer = Answer(0.0, "", None)
        self.etag = ""
        self.written: set[str] = set()
        """Objects that may be there and have to go."""
        self._reporter = reporter

    def key(self, name: str) -> str:
        """The key of one of the check's objects."""
        return f"{self.folder.key}/{name}"

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turns the store's refusals and failures at `what` into errors."""
        try:
            yield
        except FAULTS as fault:
            raise explain(fault, what, self.endpoint) from fault

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.written:
                self.folder.delete([*sorted(self.written), _FOLDER])
        except LarderError as error:
            self._reporter.event("left", f"may be left behind: {self.folder.uri}/: {error.what}", uri=self.folder.uri)


def reachability(probe: Probe) -> Finding:
    """Whether an S3 store answers at all."""
    probe.answer = first_answer(probe.settings)
    milliseconds = probe.answer.seconds * 1000
    server = f" ({probe.answer.server})" if probe.answer.server else ""
    return Finding(
        f"{probe.endpoint or 'AWS'}{server} answers in {milliseconds:.0f} ms", figures={"ms": round(milliseconds, 1)}
    )


def clock(probe: Probe) -> Finding:
    """Whether this machine's clock agrees with the store's."""
    skew = probe.answer.skew_seconds
    if skew is None:
        return Finding("the store's answers carry no date to compare with")
    figures = {"skew_s": round(skew)}
    off = abs(skew)
    if off < WARN_SKEW_SECONDS:
        return Finding(f"within {max(off, 1):.0f} s of the store's", figures=figures)
    direction = "ahead of" if skew > 0 else "behind"
    message = f"this machine's clock is {off / 60:.0f} minutes {direction} the store's"
    advice = "set the clock (`timedatectl set-ntp true`)"
    if off < REFUSED_SKEW_SECONDS:
        return Finding(f"{message}; at {REFUSED_SKEW_SECONDS // 60} a store refuses all requests", advice, figures)
    raise ConfigurationError(f"{message}: stores refuse all requests at {REFUSED_SKEW_SECONDS // 60}", next_step=advice)


def credentials(probe: Probe) -> Finding:
    """Whether the store knows the keys."""
    with probe.asking("asking for the list of buckets"):
        try:
            found = probe.client.list_buckets()
        except ClientError as fault:
            if code_of(fault) != "AccessDenied":
                raise
            return Finding("the store raises nothing against the keys; it doesn't let them list all buckets")
    return Finding(f"the store accepts the keys; buckets that it lists: {len(found['Buckets'])}")


def bucket(probe: Probe) -> Finding:
    """Whether the bucket is there and may be listed."""
    if not probe.bucket:
        raise ConfigurationError("S3_BUCKET is not set", next_step=f"set it, then run {Run('s3', 'bucket')}")
    with probe.asking(f"listing s3://{probe.bucket}"):
        probe.client.list_objects_v2(Bucket=probe.bucket, MaxKeys=1)
    return Finding(f"{probe.bucket} is there and may be listed")


def path_style(probe: Probe) -> Finding:
    """Whether the bucket may stand in the path, as larder writes addresses unless the store is AWS."""
    name = probe.bucket or "larder-no-such-bucket"
    example = f"{probe.client.meta.endpoint_url}/{name}/"
    if _lists(probe, name, "path"):
        return Finding(f"addresses like {example} work")
    if _lists(probe, name, "virtual"):
        raise ConfigurationError(
            f"the store wants the bucket in the host's name and doesn't take {example}",
            next_step="ask its operator for an address that takes path style, and set S3_ENDPOINT_URL to it",
        )
    raise Blocked("bucket")


def _lists(probe: Probe, name: str, style: Literal["path", "virtual"]) -> bool:
    """Whether the bucket is listed with its name in that place. What doesn't know the place lists something else."""
    try:
        return client(probe.settings, 1, style).list_objects_v2(Bucket=name, MaxKeys=1).get("Name") == name
    except FAULTS:
        return False


def write(probe: Probe) -> Finding:
    """Whether an object may be put."""
    probe.written.add(_SMALL)
    try:
        with _to_its_answer():
            probe.etag = probe.folder.write(_SMALL, probe.content)
    except ConfigurationError:  # refused; after other failures it may be there all the same
        probe.written.clear()
        raise
    return Finding(f"put {amount(_SMALL_BYTES, 'B')}")


def read(probe: Probe) -> Finding:
    """Whether it comes back as it was."""
    _same(probe.folder.read(_SMALL), probe.content, f"{probe.folder.uri}/{_SMALL}")
    return Finding("the same bytes come back")


def list_(probe: Probe) -> Finding:
    """Whether a listing shows it at once."""
    found = {item.path: item.bytes for item in probe.folder.list()}
    if found != {_SMALL: _SMALL_BYTES}:
        raise ServiceError(
            f"a listing of {probe.folder.uri}/ shows {found or 'nothing'} after putting {_SMALL!r} of {_SMALL_BYTES} B",
            next_step="larder needs a store whose listings are up to date (AWS's, Ceph's and MinIO's are): ask its "
            "operator whether a cache stands in front of it",
        )
    return Finding("a listing shows it at once, with its size")


def ranges(probe: Probe) -> Finding:
    """Whether a part of an object may be asked for."""
    first, last = 1000, 20_999
    with probe.asking(f"reading a range of {probe.folder.uri}/{_SMALL}"):
        answer = probe.client.get_object(Bucket=probe.bucket, Key=probe.key(_SMALL), Range=f"bytes={first}-{last}")
        data = answer["Body"].read()
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if status != 206:
        raise ServiceError(
            f"asked for bytes {first} to {last}, the store answers {status} and {len(data)} B instead of 206",
            next_step="larder reads shards by ranges: use a store, or a proxy, that serves them",
        )
    _same(data, probe.content[first : last + 1], f"bytes {first} to {last} of {probe.folder.uri}/{_SMALL}")
    return Finding("206, and just the bytes that were asked for")


def latency(probe: Probe) -> Finding:
    """How long a small object takes, one after the other."""
    times = []
    with probe.asking(f"reading {probe.folder.uri}/{_SMALL}"):
        for _ in range(_READS):
            begin = time.perf_counter()
            probe.client.get_object(Bucket=probe.bucket, Key=probe.key(_SMALL))["Body"].read()
            times.append(1000 * (time.perf_counter() - begin))
    median, most = statistics.median(times), max(times)
    return Finding(
        f"{_READS} reads of {amount(_SMALL_BYTES, 'B')}, one by one: median {median:.1f} ms, slowest {most:.1f} ms",
        figures={"median_ms": round(median, 2), "max_ms": round(most, 2), "reads": _READS, "bytes": _SMALL_BYTES},
    )


def etags(probe: Probe) -> Finding:
    """Whether an ETag tells what is in an object."""
    if probe.etag == hashlib.md5(probe.content, usedforsecurity=False).hexdigest():
        return Finding("an ETag is the MD5 of the content", figures={"md5": True})
    return Finding(
        f"an ETag is not the MD5 of the content ({probe.etag!r}), as where the store encrypts",
        "verify loads with LARDER_VERIFY_REMOTE=read, or list, which compares sizes alone", {"md5": False},
    )  # fmt: skip


def multipart(probe: Probe) -> Finding:
    """Whether a large object may be put in parts."""
    parts = (os.urandom(_PART_BYTES), os.urandom(_LAST_PART_BYTES))
    where = {"Bucket": probe.bucket, "Key": probe.key(_PARTS)}
    store: Any = probe.client
    probe.written.add(_PARTS)
    with probe.asking(f"writing {probe.folder.uri}/{_PARTS} in two parts"):
        upload = ""
        try:
            with _to_its_answer():
                upload = where["UploadId"] = store.create_multipart_upload(**where)["UploadId"]
            done = []
            for number, part in enumerate(parts, 1):
                with _to_its_answer():
                    answer = store.upload_part(**where, PartNumber=number, Body=part)
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            with _to_its_answer():
                store.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
        except BaseException:  # parts that nobody completes are paid for, and no listing of objects shows them
            with suppress(*FAULTS):  # what went wrong before says more
                if upload:
                    store.abort_multipart_upload(**where)
            raise
    _same(probe.folder.read(_PARTS), b"".join(parts), f"{probe.folder.uri}/{_PARTS}")
    return Finding(f"{amount(_PART_BYTES, 'B')} and {amount(_LAST_PART_BYTES, 'B')} came back as one object")


def delete(probe: Probe) -> Finding:
    """Whether the check's objects go when they are deleted."""
    probe.folder.delete([*sorted(probe.written), _FOLDER])
    if left := [item.path for item in probe.folder.list()]:
        raise ServiceError(
            f"{probe.folder.uri}/ still shows {left} after they were deleted",
            next_step="ask the store's operator whether the bucket keeps objects (retention, a lock), then remove them",
        )
    probe.written.clear()
    return Finding("deleted objects are gone")


@contextmanager
def _to_its_answer() -> Iterator[None]:
    """Lets a request that writes come to its answer before a signal interrupts: the store could carry out one that was
    left under way after the clean-up. A second signal interrupts at once."""
    held: list[int] = []

    def hold(number: int, _: object) -> None:
        held.append(number)
        if len(held) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            raise KeyboardInterrupt


def _same(found: bytes | None, wanted: bytes, what: str) -> None:
    if found is None:
        raise ServiceError(f"{what} was put, and is not there", next_step="ask the store's operator why objects vanish")
    if found != wanted:
        raise ServiceError(f"{what} came back with other content ({len(found)} of {len(wanted)} B)", next_step=_DAMAGED)


class Check(NamedTuple):
    """One check; it is skipped unless those in `needs` went well."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[Probe], Finding]


CHECKS = (
    Check("reachability", (), reachability),
    Check("clock", ("reachability",), clock),
    Check("credentials", ("reachability",), credentials),
    Check("bucket", ("credentials",), bucket),
    Check("path style", ("credentials",), path_style),
    Check("write", ("bucket",), write),
    Check("read", ("write",), read),
    Check("list", ("write",), list_),
    Check("ranges", ("read",), ranges),
    Check("latency", ("read",), latency),
    Check("ETags", ("write",), etags),
    Check("multipart", ("write",), multipart),
    Check("delete", ("write",), delete),
)
