"""Verify the links "raw" and "tree" (files on the volume), and "objects" and "index" (files in the store)."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from larder.contract import META, IndexEntry, index_name
from larder.packing.pack_input import IndexedInput
from services.verify.chain import INDEX, OBJECTS, RAW_FILES, TREE_FILES, Chain
from services.verify.choice import Choice
from services.verify.findings import BreakError, ChainBreak, VerifiedLink, changed_content_error
from services.verify.locations import FileStat, Location, StoreLocation
from services.verify.verified_artifact import (
    VerifiedArtifact,
    require_counts,
    require_same_dataset,
    require_source,
    to_indexed_sample,
)


def check_raw(chain: Chain) -> VerifiedLink:
    """Check every file of raw by its length, and the chosen ones by sha256."""
    artifact, tree = chain.require_artifact(RAW_FILES), chain.find_artifact(TREE_FILES)
    choice = choose_raw_files(chain, artifact, tree)
    jobs = (FileJob(entry, entry.path in choice) for entry in artifact.index)
    return _read_files(chain, artifact, jobs, "files")


def choose_raw_files(chain: Chain, raw: VerifiedArtifact, tree: VerifiedArtifact | None) -> Choice:
    """Choose the files of raw that the tree's chosen samples were made from."""
    if tree is None:
        return chain.choose(raw, map(to_indexed_sample, raw.index))
    choice = chain.choose(tree, map(to_indexed_sample, tree.index))
    if choice.whole:
        return choice
    return Choice(frozenset(entry.source or "" for entry in tree.index if entry.path in choice))


def check_tree(chain: Chain) -> VerifiedLink:
    """Check that every sample has raw's sha256 and the folder of its class, and that its file is in place.

    A hard link to a file of raw isn't read twice.
    """
    artifact, raw = chain.require_artifact(TREE_FILES), chain.find_artifact(RAW_FILES)
    if raw is not None:
        require_source(artifact, raw.manifest.digest(), "raw")
        _require_same_data(artifact, raw)
    _require_classes(artifact)
    choice = chain.choose(artifact, map(to_indexed_sample, artifact.index))
    hard_links = raw.location.name if raw is not None and RAW_FILES in chain.verified else ""
    jobs = (
        FileJob(entry, entry.path in choice, hard_links and f"{hard_links}/{entry.source}") for entry in artifact.index
    )
    return _read_files(chain, artifact, jobs, "samples")


def check_objects(chain: Chain) -> VerifiedLink:
    """Check every object against the tree's index and by its length, and the chosen ones by sha256.

    Objects whose ETag has changed since load are also read, up to the number of chosen samples: an ETag can change
    while the content doesn't.
    """
    artifact, tree = chain.require_artifact(OBJECTS), chain.find_artifact(TREE_FILES)
    if tree is not None:
        require_source(artifact, tree.tree_digest, "tree")
        require_same_dataset(artifact, tree.manifest)
        _require_same_entries(artifact, tree)
    _require_classes(artifact)
    choice = chain.choose(artifact, map(to_indexed_sample, artifact.index))
    changed: list[IndexEntry] = []
    with chain.reporter.task("objects: listing", artifact.manifest.files, "objects") as task:
        for file_stat in artifact.location.stat_files(artifact.index):
            require_length(artifact.location, file_stat)
            task.advance()
            if (
                file_stat.etag != file_stat.entry.etag
                and file_stat.entry.path not in choice
                and len(changed) < chain.settings.samples
            ):
                changed.append(file_stat.entry)
    entries = (entry for group in (_chosen(artifact, choice), changed) for entry in group)
    checked = _read_objects(chain, artifact, entries)
    return checked._replace(remark=f"{len(changed):,} of them for their ETags" if changed else "")


def check_indexed_images(chain: Chain) -> VerifiedLink:
    """Check that every image of an index has the folder of its class, and read the chosen ones from the source."""
    artifact = chain.require_artifact(INDEX)
    _require_classes(artifact)
    choice = chain.choose(artifact, map(to_indexed_sample, artifact.index))
    return _read_objects(chain, artifact, _chosen(artifact, choice), require_indexed)


class FileJob(NamedTuple):
    """A file to check."""

    entry: IndexEntry
    chosen: bool
    verified_link: str = ""
    """A verified file that may be a hard link to the same file."""


class FileResult(NamedTuple):
    """The result for one file. A hard link to a verified file is counted, and not read."""

    checked: int = 0
    bytes: int = 0
    verified_links: int = 0


def _read_files(chain: Chain, artifact: VerifiedArtifact, jobs: Iterator[FileJob], unit: str) -> VerifiedLink:
    spread = chain.spread(artifact.location)
    check = functools.partial(check_file, artifact.location)
    checked = read = hard_links = 0
    with chain.reporter.task(artifact.manifest.artifact, artifact.manifest.files, unit) as task:
        for done in spread(check, jobs):
            checked, read, hard_links = checked + done.checked, read + done.bytes, hard_links + done.verified_links
            task.advance()
    remark = f"{'all' if hard_links == checked else f'{hard_links:,}'} the same files as raw's" if hard_links else ""
    return VerifiedLink(checked, artifact.manifest.files, unit, read, remark)


def check_file(location: Location, job: FileJob) -> FileResult:
    """Raise BreakError if a file is missing, or has another length or, if it was chosen, another sha256."""
    try:
        status = os.stat(f"{location.name}/{job.entry.path}", follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        status = None
    require_length(location, FileStat(job.entry, None if status is None else status.st_size))
    if not job.chosen:
        return FileResult()
    if job.verified_link and status is not None and os.path.samestat(status, os.stat(job.verified_link)):
        return FileResult(1, 0, 1)
    return FileResult(1, require_content(location, job.entry))


def require_length(location: Location, file_stat: FileStat) -> None:
    """Raise BreakError if a file is missing or has another length than in the index."""
    entry = file_stat.entry
    if file_stat.bytes is None:
        raise missing_file_error(location, entry.path)
    if file_stat.bytes != entry.bytes:
        raise BreakError(
            ChainBreak(
                "a file has another length than the index says",
                f"{location.name}/{entry.path}",
                entry.path,
                f"{entry.bytes:,} bytes",
                f"{file_stat.bytes:,} bytes",
                location.cause,
                forced=False,
            )
        )


def missing_file_error(location: Location, path: str) -> BreakError:
    """Return the error for a file that the index names and that is missing."""
    return BreakError(
        ChainBreak("a file in the index is missing", f"{location.name}/{path}", cause="it was deleted", forced=False)
    )


def require_content(location: Location, entry: IndexEntry) -> int:
    """Read a file and return its length. Raises BreakError if its sha256 differs from the index."""
    current = location.digest(entry.path, entry.bytes)
    if current is None:
        raise missing_file_error(location, entry.path)
    if current != (entry.bytes, entry.sha256):
        where = f"{location.name}/{entry.path}"
        raise changed_content_error(
            "a file's content differs from the index", where, entry.sha256, current[1], location.cause, entry.path
        )
    return entry.bytes


def _chosen(artifact: VerifiedArtifact, choice: Choice) -> Iterator[IndexEntry]:
    return (entry for entry in artifact.index if entry.path in choice)


def require_indexed(location: Location, entry: IndexEntry) -> int:
    """Read an image from the object that an index names, and return its length.

    Raises InputError if its sha256 differs from the index.
    """
    if not isinstance(location, StoreLocation):
        raise ValueError("an index lies in a store")
    source = IndexedInput(location.settings, location.folder)
    if hashlib.sha256(source.read(entry)).hexdigest() != entry.sha256:
        raise source.changed_error(entry, "has changed")
    return entry.bytes


def _read_objects(
    chain: Chain,
    artifact: VerifiedArtifact,
    entries: Iterator[IndexEntry],
    require: Callable[[Location, IndexEntry], int] = require_content,
) -> VerifiedLink:
    check = functools.partial(require, artifact.location)
    checked = read = 0
    with chain.reporter.task(artifact.manifest.artifact, None, "objects") as task:
        for size in chain.spread(artifact.location)(check, entries):
            checked, read = checked + 1, read + size
            task.advance()
    return VerifiedLink(checked, artifact.manifest.files, "samples", read)


def _require_same_data(artifact: VerifiedArtifact, raw: VerifiedArtifact) -> None:
    where = _index_path(artifact)
    for entry in artifact.index:
        original = raw.index.find(entry.source or "")
        if original is None:
            raise BreakError(
                ChainBreak(
                    "a sample's source is not a file of raw", where, entry.path, found=f"source {entry.source!r}"
                )
            )
        if original.sha256 != entry.sha256:
            raise changed_content_error(
                "the tree's index has another sha256 than raw's",
                where,
                original.sha256,
                entry.sha256,
                "the index was edited",
                entry.path,
            )


def _require_same_entries(artifact: VerifiedArtifact, tree: VerifiedArtifact) -> None:
    for entry in artifact.index:
        original = tree.index.find(entry.path)
        if original is None or entry._replace(etag=None) != original:
            expected = "no such sample" if original is None else original.to_json()
            raise BreakError(
                ChainBreak(
                    "the objects' index differs from the tree's",
                    _index_path(artifact),
                    entry.path,
                    expected,
                    entry.to_json(),
                    "the index was edited",
                )
            )


def _require_classes(artifact: VerifiedArtifact) -> None:
    """Raise BreakError unless each sample is in the folder of its class and the manifest's counts are right."""
    where = _index_path(artifact)
    for entry in artifact.index:
        if not re.fullmatch(rf"[^/]+/class_0*{entry.label}/[^/]+", entry.path):
            raise BreakError(
                ChainBreak(
                    "a sample lies in the folder of another class", where, entry.path, found=f"class {entry.label}"
                )
            )
    require_counts(artifact, map(to_indexed_sample, artifact.index), where)


def _index_path(artifact: VerifiedArtifact) -> str:
    return f"{artifact.location.name}/{META}/{index_name(artifact.manifest)}"
