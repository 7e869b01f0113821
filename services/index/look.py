"""Looking at objects and archives in a store: what workers do. Nothing of them is written to a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from larder.contract import IndexEntry
from larder.images import MOST_BYTES
from larder.packing.source import open_folder
from larder.sources.archive_folders import ArchiveFolders, below, folder_of
from larder.sources.limits import Limits
from larder.sources.members import Member, is_litter
from larder.sources.prefix import Object, Prefix
from larder.store import BucketSettings
from larder.tree.check import check_image
from larder.tree.names import HEAD_BYTES, format_of, is_image_name, litter
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify
from services.index.archives import Range, StoredTar, StoredZip, changed, open_stored, range_of, read
from services.index.found import Looked
from services.index.listing import Stored

LABEL = "cls"
_LABEL_BYTES = 1000
_TEXTS = (
    ".bib", ".cfg", ".cls", ".csv", ".gz", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".mat", ".md", ".npy",
    ".npz", ".parquet", ".pdf", ".py", ".tar", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip",
)  # fmt: skip
"""Of what has such a name, nobody looks how it begins: a request for each would take as long as an image."""
TOO_LARGE = f"has more than {MOST_BYTES:,} bytes"


def says_no_image(path: str) -> bool:
    """Whether a name says that this is no image."""
    return path.lower().endswith(_TEXTS)


@dataclass(frozen=True)
class LookAtObject:
    """Reads an object, which may be an image, and checks it."""

    settings: BucketSettings
    verify: Verify

    def __call__(self, found: Stored) -> Looked:
        """Raises InputError when the object has changed since it was listed, ServiceError when the store fails."""
        if not is_image_name(found.path) and not self._begins_as_image(found):
            return Looked([], [], [found.path])
        if found.bytes > MOST_BYTES:
            return Looked([], [(found.path, TOO_LARGE)], [])
        data = b"".join(_prefix(self.settings, found.bucket).read(Object(*found[:4])))
        try:
            return Looked([checked(data, found.path, self.verify, found, None)], [], [])
        except RejectError as fault:
            return Looked([], [(found.path, str(fault))], [])

    def _begins_as_image(self, found: Stored) -> bool:
        if says_no_image(found.path):
            return False
        begin = open_folder(of_bucket(self.settings, found.bucket), "").read_start(found.key, HEAD_BYTES)
        if begin is None:
            raise changed(found)
        return format_of(begin) is not None


@dataclass(frozen=True)
class LookAtArchive:
    """Reads an archive from front to back, and checks each image in it."""

    settings: BucketSettings
    verify: Verify
    folders: ArchiveFolders
    limits: Limits

    def __call__(self, found: Stored) -> Looked:
        """Raises InputError for an archive whose images can't be read where they lie, or that is damaged.

        Where there are labels beside images, as WebDataset has them, a path is the member's below the archive's; else
        it is below the archive's folder, as `extract` has it.
        """
        archive = open_stored(of_bucket(self.settings, found.bucket), found, self.limits)
        looked, labels = Looked([], [], [], found.path), dict[str, str]()
        for member in archive.scan():
            self._look(archive, member, found, looked, labels)
        if not labels:
            folder = folder_of(found.path, self.folders)
            return _renamed(looked, lambda path: below(folder, path))
        return _renamed(_labelled(looked, labels), lambda path: f"{found.path}/{path}")

    def _look(
        self, archive: StoredTar | StoredZip, member: Member, found: Stored, looked: Looked, labels: dict[str, str]
    ) -> None:
        path = member.path
        if is_litter(path):
            return
        key, extension = key_of(path)
        if extension == LABEL and member.link is None:
            text = read(archive, member)[:_LABEL_BYTES].decode(errors="replace").strip()
            labels[key] = text
        elif litter(path) is not None or not (is_image_name(path) or self._begins_as_image(archive, member)):
            looked.others.append(path)
        elif member.bytes > MOST_BYTES:
            looked.rejects.append((path, TOO_LARGE))
        else:
            place = range_of(archive, member)
            try:
                looked.images.append(checked(read(archive, member), path, self.verify, found, place))
            except RejectError as fault:
                looked.rejects.append((path, str(fault)))

    def _begins_as_image(self, archive: StoredTar | StoredZip, member: Member) -> bool:
        if says_no_image(member.path) or member.link is not None:
            return False
        return format_of(next(iter(archive.read(member)), b"")[:HEAD_BYTES]) is not None


def key_of(path: str) -> tuple[str, str]:
    """A member's key and its extension, as WebDataset has them: a key ends at the first dot of the file name."""
    folder, slash, name = path.rpartition("/")
    key, _, extension = name.partition(".")
    return f"{folder}{slash}{key}", extension.lower()


def _labelled(looked: Looked, labels: dict[str, str]) -> Looked:
    """The images of a shard with their labels. What has no label, or shares one with an image, can't be a sample."""
    images, rejects, taken = list[IndexEntry](), list[tuple[str, str]](), set[str]()
    for entry in looked.images:
        key, _ = key_of(entry.path)
        label = labels.get(key)
        if label is None:
            rejects.append((entry.path, f"has no label: the shard has no {key}.{LABEL}"))
        elif key in taken:
            rejects.append((entry.path, "has the key of another image"))
        else:
            taken.add(key)
            images.append(entry._replace(source=label))
    return looked._replace(images=images, rejects=looked.rejects + rejects)


def _renamed(looked: Looked, name: Callable[[str], str]) -> Looked:
    return Looked(
        [entry._replace(path=name(entry.path)) for entry in looked.images],
        [(name(path), reason) for path, reason in looked.rejects],
        [name(path) for path in looked.others],
        looked.archive,
    )


def checked(data: bytes, path: str, verify: Verify, found: Stored, place: Range | None) -> IndexEntry:
    """The entry of an image. Raises RejectError for one that can't be a sample."""
    width, height = check_image(data, verify) or (None, None)
    entry = IndexEntry(
        path, len(data), hashlib.sha256(data).hexdigest(), None, width, height, etag=found.etag, object=found.uri
    )
    return entry if place is None else entry._replace(**place._asdict())


@lru_cache(maxsize=64)
def _prefix(settings: BucketSettings, bucket: str) -> Prefix:
    """A bucket's objects, with a client that this process keeps."""
    return Prefix(f"s3://{bucket}/", settings, 0)


@lru_cache(maxsize=64)
def of_bucket(settings: BucketSettings, bucket: str) -> BucketSettings:
    """The settings for another bucket of the same store."""
    return settings.model_copy(update={"bucket": bucket, "prefix": ""})
