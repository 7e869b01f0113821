"""The chain: for each link, what it must fulfil. Indexes are compared whole, contents are hashed for what is followed."""

from __future__ import annotations

import hashlib
import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from larder.batches import batches
from larder.contract import IndexEntry, SampleEntry
from larder.engines import LocalEngine
from larder.errors import InputError
from larder.fingerprint import ETAG_SETTINGS
from larder.progress import Reporter
from services.verify.artifact import FORCE, MANIFEST, Artifact, Tally
from services.verify.contents import BATCH_RANGES, Looked, Pack, Range, look_at_pack, look_at_ranges
from services.verify.keys import Keys, Selection, key
from services.verify.links import LINKS, BrokenError, Fault, Link
from services.verify.listing import Listing
from services.verify.report import Row
from services.verify.settings import VerifySettings

T = TypeVar("T")

READ_ALL = " LARDER_VERIFY_REMOTE=read"
_WORTH_SPREADING = 2000
"""Samples below which starting worker processes takes longer than the work."""
_ARCHIVE_BYTES = 1 << 20


class Chain:
    """Everything that is there, by the name of the link that leads to it."""

    def __init__(self, settings: VerifySettings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._found = {link.name: found for link in LINKS if (found := self._find(link)) is not None}

    def __len__(self) -> int:
        return len(self._found)

    def _find(self, link: Link) -> Artifact | None:
        place = self._settings.place(link)
        try:
            return None if place is None else Artifact(link, place, place.read(MANIFEST))
        except FileNotFoundError:
            return None

    def check(self, link: Link) -> Row:
        """Follow one link. Raises BrokenError when it doesn't hold, InputError when it was asked for and isn't there."""
        artifact = self._found.get(link.name)
        row = self._absent(link) if artifact is None else self._check(link, artifact)
        if row.verdict != "holds" and link.name in self._settings.required:
            raise InputError(
                f"{link.title} was asked for (LARDER_VERIFY_LINKS={link.name}) and can't be looked at: {row.note}",
                next_step=f"run `{link.made_by}`, or leave it out",
            )
        return row

    def _absent(self, link: Link) -> Row:
        place = self._settings.place(link)
        if place is None:
            return Row(link, note="no store was looked at: S3_BUCKET isn't set")
        return Row(link, note=f"{place.name} has no manifest, as `{link.made_by}` leaves it")

    def _check(self, link: Link, artifact: Artifact) -> Row:
        if link.name == "archive":
            return self._check_archive(artifact)
        if link.artifact == "raw":
            return self._check_raw(artifact)
        if link.artifact == "tree":
            return self._check_tree(artifact)
        return self._check_objects(artifact) if link.artifact == "objects" else self._check_packed(artifact)

    # archive → raw

    def _check_archive(self, raw: Artifact) -> Row:
        link, made_from, source = raw.link, raw.manifest.input, self._settings.source
        if made_from.get("kind") != "archive":
            return Row(link, note=f"raw comes from no archive but a {made_from.get('kind')}, which has no digest")
        named, given = str(made_from.get("sha256")), self._settings.source_sha256.lower()
        if given and given != named:
            raise self._other_archive(link, "LARDER_SOURCE_SHA256", named, given)
        path = Path(os.path.expanduser(source)) if source and "://" not in source else None
        if path is not None and path.is_file():
            size, found = self._hash_archive(path)
            if found != named:
                raise self._other_archive(link, str(path), named, found)
            return Row(link, "holds", 1, 1, size, f"{path.name} has the sha256 that raw names")
        what = "LARDER_SOURCE is a URL" if "://" in source else "LARDER_SOURCE names no file here"
        if given:
            return Row(link, "holds", 1, note=f"LARDER_SOURCE_SHA256 is what raw names; the archive is not read: {what}")
        return Row(link, note=f"the archive is not at hand ({what}); raw names its sha256: {named}")

    def _hash_archive(self, path: Path) -> tuple[int, str]:
        digest, size = hashlib.sha256(), 0
        with path.open("rb", buffering=0) as file, self._reporter.task("archive", path.stat().st_size, "B") as task:
            while piece := file.read(_ARCHIVE_BYTES):
                digest.update(piece)
                size += len(piece)
                task.advance(len(piece))
        return size, digest.hexdigest()

    def _other_archive(self, link: Link, where: str, named: str, found: str) -> BrokenError:
        return BrokenError(
            link, Fault(where, f"sha256 {named}, which raw names", f"sha256 {found}", "another archive, or damaged since"),
            next_step="get the archive again, or extract from this one (`make etl-local`), then run this again",
        )  # fmt: skip

    # raw → its files, raw → tree

    def _check_raw(self, raw: Artifact) -> Row:
        listing = self._compare(raw)
        return self._looked(raw, listing, self._look(raw, map(_whole, filter(self._is_followed, raw.entries()))))

    @cached_property
    def _followed_sources(self) -> Keys:
        """The paths in raw of the samples that are followed."""
        entries = self._tree.entries() if self._tree else iter(())
        return Keys(key(entry.source or "") for entry in entries if entry.path in self._selection)

    def _is_followed(self, entry: IndexEntry) -> bool:
        """Whether a file of raw is hashed."""
        if self._tree is None or self._selection.whole:
            return entry.path in self._selection
        return key(entry.path) in self._followed_sources

    def _check_tree(self, tree: Artifact) -> Row:
        raw = self._found.get("raw")
        if raw is None:
            listing, note = self._compare(tree), "raw is not there to compare with"
        else:
            digest = raw.manifest.digest()
            tree.require(
                MANIFEST, f"input {digest}, raw's manifest", f"input {tree.manifest.input.get('manifest')}, raw's manifest",
                "it was made from other files, or raw's manifest has changed", again="",
            )  # fmt: skip
            tree.require(MANIFEST, f"data set {raw.manifest.dataset}", f"data set {tree.manifest.dataset}")
            listing, note = self._compare(tree, _Origins(tree, raw).require), ""
        linked = 0

        def own_files() -> Iterator[Range]:
            nonlocal linked
            for entry in tree.entries():
                if entry.path in self._selection:
                    if raw is not None and self._checked("raw") and _same_file(raw, tree, entry):
                        linked += 1
                    else:
                        yield _whole(entry)

        looked = self._look(tree, own_files())
        if linked:
            note = f"{linked:,} are hard links to raw's files, hashed there"
        return self._looked(tree, listing, looked._replace(contents=looked.contents + linked), note)

    def _checked(self, name: str) -> bool:
        return not self._settings.required or name in self._settings.required

    # tree → objects in the store

    def _check_objects(self, objects: Artifact) -> Row:
        tree, note = self._found.get("tree"), ""
        if tree is None:
            listing, note = self._compare(objects), "the tree is not there to compare with"
        else:
            self._require_tree(objects, tree)
            listing = self._compare(objects, _InStep(objects, tree).require)
        return self._fetched(objects, listing, map(_whole, self._followed(objects)), note)

    def _require_tree(self, artifact: Artifact, tree: Artifact) -> None:
        """Raise BrokenError unless an artifact was made from this tree and says the same of it."""
        artifact.require(
            MANIFEST, f"input {tree.tree_digest}, the tree's manifest",
            f"input {artifact.manifest.input.get('manifest')}, the tree's manifest",
            "it was made from another tree, or the tree's manifest has changed", again="",
        )  # fmt: skip
        for field in ("dataset", "classes", "splits"):
            of_tree, found = getattr(tree.manifest, field), getattr(artifact.manifest, field)
            artifact.require(MANIFEST, f"{field} {of_tree}, as in the tree", f"{field} {found}, as in the tree")

    def _followed(self, artifact: Artifact) -> Iterator[IndexEntry]:
        return (entry for entry in artifact.entries() if entry.path in self._selection)

    # tree → shards, tree → chunks, on a volume or in the store

    def _check_packed(self, packed: Artifact) -> Row:
        note = ""
        if self._tree is None:
            note = "the tree is not there to compare with"
        else:
            self._require_tree(packed, self._tree)
        local = self._found.get(packed.link.artifact) if packed.link.in_store else None
        if packed.link.in_store:
            note = note or self._compare_copies(packed, local)
        files: dict[str, IndexEntry] = {}
        listing = self._compare(packed, lambda entry: files.update({entry.path: entry}))
        samples = self._compare_samples(packed, files)
        if self._selection.whole:
            row = self._looked(packed, listing, self._look_at_packs(packed, files), note, again=_mends(packed, listing))
        else:
            row = self._fetched(packed, listing, self._members(packed), note)
        return row._replace(compared=samples)

    def _compare_copies(self, stored: Artifact, local: Artifact | None) -> str:
        """Raise BrokenError where a copy in a store isn't what the volume holds. Returns what is to be said of it."""
        if local is None:
            return "none on a volume: followed from the tree"
        ours, theirs = local.manifest.settings, stored.manifest.settings
        if ours != {name: value for name, value in theirs.items() if name not in ETAG_SETTINGS}:
            return "made with other settings than those on the volume: followed from the tree"
        for field in ("samples", "files", "bytes"):
            expected, found = getattr(local.manifest, field), getattr(stored.manifest, field)
            stored.require(MANIFEST, f"{field} {expected}, as on the volume", f"{field} {found}, as on the volume")
        for entry, own in zip(stored.entries(), local.entries(), strict=True):
            stored.require(entry.path, f"{own.path} {own.bytes} {own.sha256}", f"{entry.path} {entry.bytes} {entry.sha256}")
        return ""

    def _compare_samples(self, packed: Artifact, files: dict[str, IndexEntry]) -> int:
        """Compare the index of samples with the files and the tree. Returns the number of samples."""
        found, tally, where = array("Q"), Tally(packed), _Whereabouts(packed, files)
        known = self._tree_keys if self._tree else None
        with self._reporter.task(f"{packed.link.title}: comparing samples", _samples(packed), "samples") as task:
            for sample, _ in packed.samples():
                where.require(sample)
                found.append(_key_of_sample(sample))
                if known is not None and found[-1] not in known:
                    raise self._not_in_tree(packed, sample)
                tally.add(sample.file, sample.bytes, sample.label)
                task.advance()
        self._require_each_once(packed, Keys(found))
        tally.compare()
        return len(found)

    @cached_property
    def _tree_keys(self) -> Keys:
        return Keys(map(_key_of_entry, self._tree.entries() if self._tree else ()))

    def _not_in_tree(self, packed: Artifact, sample: SampleEntry) -> BrokenError:
        """The error for a sample that the tree hasn't just so."""
        place = f"{sample.file}, {sample.source} at byte {sample.offset}"
        entries = self._tree.entries() if self._tree else iter(())
        entry = next((entry for entry in entries if entry.path == sample.source), None)
        if entry is None:
            return packed.broken(place, "a sample of the tree", f"{sample.source!r}, which the tree hasn't")
        for name in ("bytes", "sha256", "label"):
            expected, found = getattr(entry, name), getattr(sample, name)
            if expected != found:
                name = "class" if name == "label" else name
                return packed.broken(place, f"{name} {expected}, as in the tree", f"{name} {found}")
        raise AssertionError("unreachable")

    def _require_each_once(self, packed: Artifact, found: Keys) -> None:
        if (twice := found.repeated()) is not None:
            one, other = itertools.islice((s for s, _ in packed.samples() if _key_of_sample(s) == twice), 2)
            raise packed.broken(other.file, f"each sample once, and {one.source} is in {one.file}", "it a second time")
        if self._tree is not None and len(found) < len(self._tree_keys):
            gone = next(entry for entry in self._tree.entries() if _key_of_entry(entry) not in found)
            raise packed.broken("", f"the sample {gone.path}, which the tree has", "no such sample")

    def _members(self, packed: Artifact) -> Iterator[Range]:
        """Where the samples lie that are followed."""
        for sample, _ in packed.samples():
            if sample.source in self._selection:
                yield Range(sample.file, sample.offset, sample.bytes, sample.sha256, sample.source)

    def _look_at_packs(self, packed: Artifact, files: dict[str, IndexEntry]) -> Looked:
        """Read every file once, for its own digest and those of the samples in it."""

        def packs() -> Iterator[Pack]:
            without = dict.fromkeys(files)
            for path, some in itertools.groupby(packed.samples(), key=lambda item: item[0].file):
                del without[path]
                yield Pack(path, files[path].bytes, files[path].sha256, b"\n".join(line for _, line in some))
            for path in without:
                yield Pack(path, files[path].bytes, files[path].sha256, b"")

        return self._work(packed, partial(look_at_pack, packed.place), packs())

    # what all have in common

    @cached_property
    def _tree(self) -> Artifact | None:
        """The tree, or where it isn't there, its objects in the store, whose index says the same."""
        return self._found.get("tree") or self._found.get("objects")

    @cached_property
    def _selection(self) -> Selection:
        count, seed = self._settings.sample, self._settings.seed
        one = self._tree or self._found.get("raw")
        if one is not None:
            return Selection((entry.path for entry in one.entries()), count, seed)
        packed = next(iter(self._found.values()))
        return Selection((sample.source for sample, _ in packed.samples()), count, seed)

    def _compare(self, artifact: Artifact, also: Callable[[IndexEntry], None] = lambda entry: None) -> Listing:
        """Compare an artifact's index with its manifest and with what lies there; `also` is told each entry."""
        title, manifest = artifact.link.title, artifact.manifest
        with self._reporter.task(f"{title}: comparing files", manifest.files, "files") as task:
            listing = Listing(artifact)
            for entry in artifact.checked():
                also(entry)
                listing.require(entry)
                task.advance()
        return listing

    def _look(self, artifact: Artifact, ranges: Iterable[Range], again: str | None = None) -> Looked:
        return self._work(
            artifact, partial(look_at_ranges, artifact.place), batches(ranges, BATCH_RANGES), again=again
        )  # fmt: skip

    def _work(
        self, artifact: Artifact, function: Callable[[T], Looked], tasks: Iterable[T], again: str | None = None
    ) -> Looked:
        """Spread work over the workers and sum it up. Raises BrokenError at the first fault."""
        contents = total = 0
        few = 0 < self._settings.sample <= _WORTH_SPREADING
        size = artifact.manifest.bytes if self._selection.whole else None
        with (
            self._reporter.task(f"{artifact.link.title}: hashing", size, "B") as task,
            LocalEngine(1 if few else self._settings.workers)(function, tasks) as results,
        ):
            for looked in results:
                if looked.fault is not None:
                    raise artifact.fault(looked.fault, again=again)
                contents, total = contents + looked.contents, total + looked.bytes
                task.advance(looked.bytes)
        return Looked(contents, total)

    def _fetched(self, artifact: Artifact, listing: Listing, ranges: Iterable[Range], note: str) -> Row:
        """Hash what is followed, and what has another ETag in a store than the index says, which may have a reason."""
        again = _mends(artifact, listing)
        looked = self._look(artifact, ranges, again)
        if listing.differing and not self._selection.whole:
            odd = (_whole(entry) for entry in artifact.entries() if listing.differs(entry))
            more = self._look(artifact, odd if listing.has_checksums else itertools.islice(odd, 1), again)
            looked = Looked(looked.contents + more.contents, looked.bytes + more.bytes)
        return self._looked(artifact, listing, looked, note, again)
