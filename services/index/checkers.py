"""Check objects and archives in a store, in workers. Nothing is written to disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from larder.contract import IndexEntry
from larder.errors import InputError
from larder.images import MAX_IMAGE_BYTES
from larder.packing.pack_input import open_prefix
from larder.sources.archive_folders import ArchiveFolders, join_folder, name_archive_folder
from larder.sources.kinds import is_archive, is_hidden
from larder.sources.limits import SourceLimits
from larder.sources.members import Member, is_litter, join_chunks
from larder.sources.prefix_reader import PrefixReader, S3Object
from larder.sources.random_access import BEGINNING, ScanPlace
from larder.store import BucketSettings, with_bucket
from larder.tree.check import check_image
from larder.tree.file_names import HEAD_BYTES, detect_image_format, is_image_name, litter_reason
from larder.tree.lists import list_error
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify
from larder.tree.shard_labels import CLASS, MAX_LABEL_BYTES, key_of, label_in
from services.index.archives import (
    USE_EXTRACT_HINT,
    ByteRange,
    StoredTar,
    StoredZip,
    changed_object_error,
    find_byte_range,
    open_stored,
    read_member,
)
from services.index.check_ledger import CheckResult
from services.index.listing import StoredObject

_SHOWN = 200
_NEVER_IMAGES = (
    ".bib",
    ".cfg",
    ".cls",
    ".csv",
    ".gz",
    ".htm",
    ".html",
    ".ini",
    ".json",
    ".jsonl",
    ".log",
    ".mat",
    ".md",
    ".npy",
    ".npz",
    ".parquet",
    ".pdf",
    ".py",
    ".tar",
    ".toml",
    ".tsv",
    ".txt",
    ".xml",
    ".yaml",
    ".yml",
    ".zip",
)
"""Extensions of files that are never images: reading their first bytes would take as long as reading an image."""
MEMBERS_AT_ONCE = 10_000
"""Members of an archive whose results a worker keeps in memory, about 1 kB for each."""
TOO_LARGE = f"has more than {MAX_IMAGE_BYTES:,} bytes"


def is_never_image(path: str) -> bool:
    """Return whether a file's extension rules out an image."""
    return path.lower().endswith(_NEVER_IMAGES)


@dataclass(frozen=True)
class ObjectChecker:
    """Reads and checks an object that may be an image."""

    settings: BucketSettings
    verify: Verify

    def __call__(self, stored: StoredObject) -> CheckResult:
        """Check an object. Raises InputError if it has changed since it was listed, ServiceError if the store fails."""
        if not is_image_name(stored.path) and not self._begins_as_image(stored):
            return CheckResult([], [], [stored.path])
        if stored.bytes > MAX_IMAGE_BYTES:
            return CheckResult([], [(stored.path, TOO_LARGE)], [])
        data = join_chunks(_prefix(self.settings, stored.bucket).read(S3Object(*stored[:4])))
        try:
            return CheckResult([check_content(data, stored.path, self.verify, stored, None)], [], [])
        except RejectError as why:
            return CheckResult([], [(stored.path, str(why))], [])

    def _begins_as_image(self, stored: StoredObject) -> bool:
        if is_never_image(stored.path):
            return False
        begin = open_prefix(with_bucket(self.settings, stored.bucket), "").read_start(stored.key, HEAD_BYTES)
        if begin is None:
            raise changed_object_error(stored)
        return detect_image_format(begin) is not None


class ArchiveJob(NamedTuple):
    """An archive, and where to begin in it."""

    stored: StoredObject
    begin: ScanPlace = BEGINNING


class ArchivePart(NamedTuple):
    """What is in a part of an archive, with paths in the archive."""

    stored: StoredObject
    result: CheckResult
    labels: dict[str, str]
    """Labels by key."""
    rest: ScanPlace | None
    """Where the next part begins; None after the last one."""


@dataclass(frozen=True)
class ArchiveChecker:
    """Reads an archive sequentially, a part at a time, and checks each image in it."""

    settings: BucketSettings
    verify: Verify
    folders: ArchiveFolders
    limits: SourceLimits
    is_whole_source: bool
    """Whether the archive is the whole source. Then `extract` would unpack archives inside it."""

    def __call__(self, job: ArchiveJob) -> ArchivePart:
        """Check the next members of an archive.

        Raises InputError if it is damaged, or if its images can't be read in place.
        """
        stored = job.stored
        archive = open_stored(with_bucket(self.settings, stored.bucket), stored, self.limits)
        archive.begin = job.begin
        result, labels = CheckResult([], [], [], stored.path), dict[str, str]()
        for number, member in enumerate(archive.scan(), 1):
            self._check_member(archive, member, stored, result, labels)
            if number >= MEMBERS_AT_ONCE and archive.place is not None:
                archive.faults.raise_if_any(archive.name)
                return ArchivePart(stored, result, labels, archive.place)
        return ArchivePart(stored, result, labels, None)

    def complete(self, result: CheckResult, labels: dict[str, str], has_labels: bool) -> CheckResult:
        """Match images with their labels, and give all their paths in the source.

        With labels beside images, as in WebDataset shards, a path is `<archive>/<member>`. Otherwise it is below the
        archive's folder, as `extract` names it.

        Args:
            result: Members of an archive: all, or all of some keys.
            labels: Their labels by key.
            has_labels: Whether the archive has any labels.
        """
        if not has_labels:
            folder = name_archive_folder(result.archive, self.folders)
            return _rename_paths(result, lambda path: join_folder(folder, path))
        return _rename_paths(_match_labels(result, labels), lambda path: f"{result.archive}/{path}")

    def _check_member(
        self,
        archive: StoredTar | StoredZip,
        member: Member,
        stored: StoredObject,
        result: CheckResult,
        labels: dict[str, str],
    ) -> None:
        path = member.path
        if is_litter(path):
            return
        key = key_of(path)
        if path.endswith(CLASS) and litter_reason(path) is None and member.link is None:
            if key in labels:
                raise list_error(f"{archive.name}: {path}", "has the same key as another")
            labels[key] = label_in(f"{archive.name}: {path}", _read_start(archive, member, MAX_LABEL_BYTES + 1))
        elif self.is_whole_source and is_archive(path) and not is_hidden(path) and member.link is None:
            raise InputError(
                f"{archive.name} holds the archive {path!r}, whose content can't be read in place",
                next_step=f"{USE_EXTRACT_HINT}; or put both archives into the store",
            )
        elif litter_reason(path) is not None or not (is_image_name(path) or self._begins_as_image(archive, member)):
            result.other_paths.append(path)
        elif member.bytes > MAX_IMAGE_BYTES:
            result.rejects.append((path, TOO_LARGE))
        else:
            byte_range = find_byte_range(archive, member)
            try:
                result.images.append(check_content(read_member(archive, member), path, self.verify, stored, byte_range))
            except RejectError as why:
                result.rejects.append((path, str(why)))

    def _begins_as_image(self, archive: StoredTar | StoredZip, member: Member) -> bool:
        if is_never_image(member.path) or member.link is not None:
            return False
        return detect_image_format(_read_start(archive, member, HEAD_BYTES)) is not None


def _read_start(archive: StoredTar | StoredZip, member: Member, max_bytes: int) -> bytes:
    """Return a member's first bytes, at most `max_bytes`."""
    begin = b""
    for chunk in archive.read(member):
        begin += chunk[:max_bytes]
        if len(begin) >= max_bytes:
            break
    return begin[:max_bytes]


def _match_labels(result: CheckResult, labels: dict[str, str]) -> CheckResult:
    """Match the images of a shard with their labels, and reject images without one.

    If several images have one key, such as an image and its mask, the first by path is the sample.
    """
    images, rejects, first, taken = list[IndexEntry](), list[tuple[str, str]](), dict[str, str](), set[str]()
    for path in sorted([entry.path for entry in result.images] + [path for path, _ in result.rejects]):
        first.setdefault(key_of(path), path)
    for entry in result.images:
        key = key_of(entry.path)
        label = labels.get(key)
        if label is None:
            rejects.append((entry.path, f"has no {CLASS} with its key {key[-_SHOWN:]!a}"))
        elif (other := first[key]) != entry.path:
            rejects.append((entry.path, f"has the key of another image, {other!a}"))
        else:
            taken.add(key)
            images.append(entry._replace(source=label))
    used_keys = taken | {key_of(path) for path, _ in result.rejects}
    rejects += [(f"{key}{CLASS}", "has no image with its key in the shard") for key in labels.keys() - used_keys]
    counts = dict.fromkeys(labels.values(), 0)
    for key in taken:
        counts[labels[key]] += 1
    return result._replace(images=images, rejects=result.rejects + rejects, labels=counts)


def _rename_paths(result: CheckResult, name: Callable[[str], str]) -> CheckResult:
    return CheckResult(
        [entry._replace(path=name(entry.path)) for entry in result.images],
        [(name(path), reason) for path, reason in result.rejects],
        [name(path) for path in result.other_paths],
        result.archive,
        result.labels,
    )


def check_content(
    data: bytes, path: str, verify: Verify, stored: StoredObject, byte_range: ByteRange | None
) -> IndexEntry:
    """Check an image and return its entry. Raises RejectError if it can't be a sample."""
    width, height = check_image(data, verify) or (None, None)
    entry = IndexEntry(
        path, len(data), hashlib.sha256(data).hexdigest(), None, width, height, etag=stored.etag, object=stored.uri
    )
    return entry if byte_range is None else entry._replace(**byte_range._asdict())


@lru_cache(maxsize=64)
def _prefix(settings: BucketSettings, bucket: str) -> PrefixReader:
    """Return a bucket's objects; the cache keeps one client per process."""
    return PrefixReader(f"s3://{bucket}/", settings, 0)
