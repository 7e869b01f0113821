"""Check that an artifact's manifest, digests, index and counts agree, and match the artifact that it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from larder.contract import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    META,
    Artifact,
    IndexEntry,
    IndexSummary,
    Manifest,
    SplitSummary,
    index_name,
    parse_manifest,
)
from larder.errors import InputError
from larder.progress import format_amount
from services.verify.findings import EDITED, AbsentError, BreakError, ChainBreak, changed_content_error
from services.verify.locations import Location
from services.verify.sorted_index import SortedIndex


@dataclass(frozen=True)
class VerifiedArtifact:
    """The manifest and index of a finished artifact, which agree."""

    location: Location
    manifest: Manifest
    index: SortedIndex

    @property
    def tree_digest(self) -> str:
        """The digest of the tree's manifest, for a tree or its objects; for an index, that of its own manifest."""
        return (
            self.manifest.digest()
            if self.manifest.artifact in ("tree", "index")
            else str(self.manifest.input.get("manifest"))
        )


def read_artifact(location: Location, artifact: Artifact, work: Path) -> VerifiedArtifact:
    """Read manifest and index. Raises AbsentError if there is no manifest, BreakError if they don't agree."""
    manifest = _read_manifest(location, artifact)
    file = fetch_index_file(location, index_name(manifest), manifest.index, work)
    try:
        index = SortedIndex(file)
        _require_index(location, manifest, index)
    except ValueError as fault:
        raise BreakError(
            ChainBreak(
                f"the index has an invalid line ({str(fault)[:200]})",
                f"{location.name}/{META}/{index_name(manifest)}",
            )
        ) from None
    return VerifiedArtifact(location, manifest, index)


def _read_manifest(location: Location, artifact: Artifact) -> Manifest:
    text = location.read(MANIFEST, MAX_MANIFEST_BYTES)
    if text is None:
        raise AbsentError(f"no {MANIFEST} in {location.name}")
    where = f"{location.name}/{MANIFEST}"
    try:
        manifest = parse_manifest(text, where)
    except InputError as error:
        raise BreakError(ChainBreak(error.what, where, cause=location.cause)) from None
    if manifest.artifact != artifact:
        raise BreakError(ChainBreak("the manifest is of another artifact", where, "", artifact, manifest.artifact))
    if text != manifest.to_json().encode():
        raise BreakError(ChainBreak("the manifest isn't as larder writes it", where, cause="somebody edited it"))
    return manifest


def fetch_index_file(location: Location, name: str, summary: IndexSummary, work: Path) -> Path:
    """Fetch an index file. Raises BreakError if it is missing or has another digest than in the manifest."""
    where = f"{location.name}/{META}/{name}"
    fetched = location.fetch(f"{META}/{name}", work, summary.bytes)
    if fetched is None:
        raise BreakError(ChainBreak("an index in the manifest is missing", where, expected=summary.sha256))
    file, digest = fetched
    if digest != summary.sha256:
        raise changed_content_error("an index differs from the manifest", where, summary.sha256, digest, location.cause)
    return file


def _require_index(location: Location, manifest: Manifest, index: SortedIndex) -> None:
    """Raise BreakError unless the index is sorted and has the manifest's number of files and bytes."""
    where, files, size, previous = f"{location.name}/{META}/{index_name(manifest)}", 0, 0, b""
    for entry in index:
        path = entry.path.encode()
        if path <= previous:
            raise BreakError(ChainBreak(f"the index isn't sorted at {entry.path!r}", where))
        files, size, previous = files + 1, size + entry.bytes, path
    if (files, size) != (manifest.files, manifest.bytes):
        expected, found = (
            f"{format_amount(count, 'files')} of {format_amount(length, 'bytes')}"
            for count, length in ((manifest.files, manifest.bytes), (files, size))
        )
        raise BreakError(ChainBreak("the manifest's counts differ from the index", where, "", expected, found))


def require_source(artifact: VerifiedArtifact, digest: str, input_name: str) -> None:
    """Raise BreakError unless an artifact's manifest names `digest` as its input.

    `input_name` names the input artifact in messages.
    """
    named = str(artifact.manifest.input.get("manifest"))
    if named != digest:
        raise BreakError(
            ChainBreak(
                f"these data were made from another {input_name} than the current one",
                f"{artifact.location.name}/{MANIFEST}, input.manifest",
                "",
                f"sha256 {digest}",
                f"sha256 {named}",
                f"the {input_name} was created again since, or its manifest was edited",
                forced=False,
            )
        )


def require_same_dataset(artifact: VerifiedArtifact, tree: Manifest) -> None:
    """Raise BreakError unless a manifest has the tree's dataset, classes and splits."""
    for field in ("dataset", "classes", "splits"):
        expected, found = getattr(tree, field), getattr(artifact.manifest, field)
        if expected != found:
            raise BreakError(
                ChainBreak(
                    f"the manifest's {field} differ from the tree's",
                    f"{artifact.location.name}/{MANIFEST}, {field}",
                    cause="somebody edited it",
                )
            )


class IndexedSample(NamedTuple):
    """A sample from any index; `path` is its path in the tree."""

    path: str
    bytes: int
    label: int | None

    @property
    def split(self) -> str:
        """The first part of the path."""
        return self.path.partition("/")[0]


def require_counts(artifact: VerifiedArtifact, samples: Iterable[IndexedSample], where: str) -> None:
    """Raise BreakError unless samples, bytes and classes of every split match the manifest."""
    classes = len(artifact.manifest.classes)
    counts: dict[str, SplitCount] = {}
    for sample in samples:
        if sample.label is None or not 0 <= sample.label < classes:
            raise BreakError(
                ChainBreak(f"class {sample.label} isn't one of the {classes} in the manifest", where, sample.path)
            )
        if sample.split not in artifact.manifest.splits:
            raise BreakError(ChainBreak("the manifest has no such split", where, sample.path))
        counts.setdefault(sample.split, SplitCount(classes)).add(sample)
    for split in sorted(counts.keys() | artifact.manifest.splits.keys()):
        stated = artifact.manifest.splits.get(split)
        counted = counts[split].summary() if split in counts else None
        if stated != counted:
            raise BreakError(
                ChainBreak(
                    f"the manifest's counts for the split {split} differ from the index",
                    where,
                    "",
                    _describe_split(stated),
                    _describe_split(counted),
                    EDITED,
                )
            )


class SplitCount:
    """Counts the samples of a split."""

    def __init__(self, classes: int) -> None:
        self._samples = self._bytes = 0
        self._per_class = [0] * classes

    def add(self, sample: IndexedSample) -> None:
        """Count a sample that has a class."""
        self._samples, self._bytes = self._samples + 1, self._bytes + sample.bytes
        self._per_class[sample.label or 0] += 1

    def summary(self) -> SplitSummary:
        """Return the counts as in a manifest."""
        return SplitSummary(samples=self._samples, bytes=self._bytes, samples_per_class=self._per_class)


def _describe_split(split: SplitSummary | None) -> str:
    if split is None:
        return "no such split"
    samples, size = format_amount(split.samples, "samples"), format_amount(split.bytes, "bytes")
    return f"{samples} of {size}, by class {split.samples_per_class}"


def to_indexed_sample(entry: IndexEntry) -> IndexedSample:
    """Return the sample of a file or object."""
    return IndexedSample(entry.path, entry.bytes, entry.label)
