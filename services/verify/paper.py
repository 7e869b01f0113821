"""What an artifact says of itself and of the one that it was made from: manifest, digests, index, counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from larder.contract import (
    MANIFEST,
    MANIFEST_BYTES,
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
from larder.progress import amount
from services.verify.findings import EDITED, AbsentError, BreakError, Fault, changed
from services.verify.index import SortedIndex
from services.verify.places import Place


@dataclass(frozen=True)
class Paper:
    """A finished artifact whose manifest and index were found to agree."""

    place: Place
    manifest: Manifest
    index: SortedIndex

    @property
    def tree_digest(self) -> str:
        """Of a tree or its objects: the digest of the tree's own manifest. Of an index: that of its manifest."""
        return (
            self.manifest.digest()
            if self.manifest.artifact in ("tree", "index")
            else str(self.manifest.input.get("manifest"))
        )


def read_paper(place: Place, artifact: Artifact, work: Path) -> Paper:
    """Raises AbsentError when nothing finished is there, BreakError when manifest and index don't agree."""
    manifest = _manifest(place, artifact)
    file = require_file(place, index_name(manifest), manifest.index, work)
    try:
        index = SortedIndex(file)
        _require_index(place, manifest, index)
    except ValueError as fault:
        raise BreakError(
            Fault(
                f"the index holds a line that is none ({str(fault)[:200]})",
                f"{place.name}/{META}/{index_name(manifest)}",
            )
        ) from None
    return Paper(place, manifest, index)


def _manifest(place: Place, artifact: Artifact) -> Manifest:
    text = place.read(MANIFEST, MANIFEST_BYTES)
    if text is None:
        raise AbsentError(f"no {MANIFEST} in {place.name}")
    where = f"{place.name}/{MANIFEST}"
    try:
        manifest = parse_manifest(text, where)
    except InputError as error:
        raise BreakError(Fault(error.what, where, cause=place.cause)) from None
    if manifest.artifact != artifact:
        raise BreakError(
            Fault("the manifest is of other data than belong there", where, "", artifact, manifest.artifact)
        )
    if text != manifest.to_json().encode():
        raise BreakError(Fault("the manifest isn't as larder writes it", where, cause="somebody edited it"))
    return manifest


def require_file(place: Place, name: str, summary: IndexSummary, work: Path) -> Path:
    """An index file on this machine. Raises BreakError unless it is there and what the manifest says."""
    where = f"{place.name}/{META}/{name}"
    found = place.fetch(f"{META}/{name}", work, summary.bytes)
    if found is None:
        raise BreakError(Fault("an index that the manifest names isn't there", where, expected=summary.sha256))
    file, digest = found
    if digest != summary.sha256:
        raise changed("an index isn't what the manifest says", where, summary.sha256, digest, place.cause)
    return file


def _require_index(place: Place, manifest: Manifest, index: SortedIndex) -> None:
    """The index is sorted, and sums up to what the manifest says."""
    where, files, size, before = f"{place.name}/{META}/{index_name(manifest)}", 0, 0, b""
    for entry in index:
        path = entry.path.encode()
        if path <= before:
            raise BreakError(Fault(f"the index isn't sorted at {entry.path!r}", where))
        files, size, before = files + 1, size + entry.bytes, path
    if (files, size) != (manifest.files, manifest.bytes):
        expected, found = (f"{amount(one, 'files')} of {amount(other, 'bytes')}" for one, other in (
            (manifest.files, manifest.bytes), (files, size)))  # fmt: skip
        raise BreakError(Fault("the manifest counts other files than the index lists", where, "", expected, found))


def require_source(paper: Paper, digest: str, before: str) -> None:
    """Raise BreakError unless an artifact was made from the one that is there, by the digest of its manifest.

    `before` is that artifact in words.
    """
    named = str(paper.manifest.input.get("manifest"))
    if named != digest:
        raise BreakError(
            Fault(
                f"these data were made from another {before} than the one that is there",
                f"{paper.place.name}/{MANIFEST}, input.manifest", "", f"sha256 {digest}", f"sha256 {named}",
                f"the {before} was made anew since, or its manifest was edited", forced=False,
            )
        )  # fmt: skip


def require_same(paper: Paper, tree: Manifest) -> None:
    """Raise BreakError unless a manifest repeats what the one of the tree says: data set, classes, splits."""
    for field in ("dataset", "classes", "splits"):
        expected, found = getattr(tree, field), getattr(paper.manifest, field)
        if expected != found:
            raise BreakError(
                Fault(f"the manifest has other {field} than the tree's", f"{paper.place.name}/{MANIFEST}, {field}",
                      cause="somebody edited it")
            )  # fmt: skip


class Sample(NamedTuple):
    """A sample as some index has it; `path` is the one in the tree."""

    path: str
    bytes: int
    label: int | None

    @property
    def split(self) -> str:
        """The split that its path begins with."""
        return self.path.partition("/")[0]


def require_counts(paper: Paper, samples: Iterable[Sample], where: str) -> None:
    """Raise BreakError unless samples, bytes and classes of every split are those that the manifest states."""
    classes = len(paper.manifest.classes)
    found: dict[str, SplitCount] = {}
    for sample in samples:
        if sample.label is None or not 0 <= sample.label < classes:
            raise BreakError(
                Fault(f"class {sample.label} is none of the {classes} in the manifest", where, sample.path)
            )
        if sample.split not in paper.manifest.splits:
            raise BreakError(Fault("the manifest has no such split", where, sample.path))
        found.setdefault(sample.split, SplitCount(classes)).add(sample)
    for split in sorted(found.keys() | paper.manifest.splits.keys()):
        stated = paper.manifest.splits.get(split)
        counted = found[split].summary() if split in found else None
        if stated != counted:
            raise BreakError(
                Fault(f"the manifest states other numbers for the split {split} than are listed", where, "",
                      _in_words(stated), _in_words(counted), EDITED)
            )  # fmt: skip


class SplitCount:
    """Sums up a split."""

    def __init__(self, classes: int) -> None:
        self._samples = self._bytes = 0
        self._per_class = [0] * classes

    def add(self, sample: Sample) -> None:
        """Count a sample, which has a class."""
        self._samples, self._bytes = self._samples + 1, self._bytes + sample.bytes
        self._per_class[sample.label or 0] += 1

    def summary(self) -> SplitSummary:
        """As a manifest has it."""
        return SplitSummary(samples=self._samples, bytes=self._bytes, samples_per_class=self._per_class)


def _in_words(split: SplitSummary | None) -> str:
    if split is None:
        return "no such split"
    return f"{amount(split.samples, 'samples')} of {amount(split.bytes, 'bytes')}, by class {split.samples_per_class}"


def sample_of(entry: IndexEntry) -> Sample:
    """The sample that a file of the tree, or its object, is."""
    return Sample(entry.path, entry.bytes, entry.label)
