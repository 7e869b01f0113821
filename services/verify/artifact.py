"""An artifact in its place: its manifest and its indexes, each compared with the digest that vouches for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

from larder.contract import (
    META,
    IndexEntry,
    IndexSummary,
    Manifest,
    SampleEntry,
    SplitSummary,
    index_name,
    parse_manifest,
    samples_name,
)
from larder.errors import InputError
from larder.fingerprint import ETAG_SETTINGS
from services.verify.links import BrokenError, Fault, Link
from services.verify.places import Place, pieces

T = TypeVar("T")

MANIFEST = f"{META}/manifest.json"
FORCE = " LARDER_FORCE=true"


class Artifact:
    """The data that a link leads to. Its streams raise BrokenError where they aren't what the manifest says."""

    def __init__(self, link: Link, place: Place, manifest: bytes) -> None:
        self.link, self.place = link, place
        self._text = manifest
        self._sound: set[str] = set()

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest. Raises BrokenError when it is none, another artifact's, or not as larder writes it."""
        where, again = f"{self.place.name}/{MANIFEST}", FORCE
        try:
            manifest = parse_manifest(self._text, where)
        except InputError as error:
            raise self.broken(MANIFEST, "a manifest", f"something else: {error.what}", again=again) from error
        self.require(MANIFEST, self.link.artifact, manifest.artifact, again=again)
        canonical, found = manifest.to_json().encode(), self._text
        self.require(MANIFEST, _sha256(canonical), _sha256(found), "it isn't as larder writes it", again=again)
        if self.link.in_store and not manifest.in_store:
            raise self.broken(MANIFEST, f"the settings {', '.join(ETAG_SETTINGS)}", "none of them", again=again)
        return manifest

    @property
    def tree_digest(self) -> str:
        """The digest of the tree's manifest, for a tree or the objects of one."""
        return str(self.manifest.input.get("manifest")) if self.link.in_store else self.manifest.digest()

    def entries(self) -> Iterator[IndexEntry]:
        """Stream the index."""
        return self._stream(index_name(self.manifest), self.manifest.index, IndexEntry.from_json)

    def samples(self) -> Iterator[tuple[SampleEntry, bytes]]:
        """Stream a packed artifact's index of samples: each with its line."""
        if self.manifest.samples is None:
            raise self.broken(MANIFEST, "the digest of an index of samples", "none", again=FORCE)
        name, summary = samples_name(self.manifest), self.manifest.samples
        return self._stream(name, summary, lambda line: (SampleEntry.from_json(line), line))

    def _stream(self, name: str, summary: IndexSummary, parse: Callable[[bytes], T]) -> Iterator[T]:
        path = f"{META}/{name}"
        if path not in self._sound:
            digest, length = hashlib.sha256(), 0
            for piece in self._pieces(path, summary.bytes + 1):  # one more, which must not be there
                digest.update(piece)
                length += len(piece)
            self.require(path, f"{summary.bytes:,} bytes", f"{length:,} bytes", again=FORCE)
            self.require(path, f"sha256 {summary.sha256}", f"sha256 {digest.hexdigest()}", again=FORCE)
            self._sound.add(path)
        for line in _lines(self._pieces(path, summary.bytes)):
            try:
                yield parse(line)
            except (ValueError, TypeError, KeyError) as error:
                raise self.broken(path, "lines of an index", repr(line[:200].decode(errors="replace"))) from error

    def _pieces(self, path: str, length: int) -> Iterator[bytes]:
        try:
            yield from pieces(self.place, path, 0, length)
        except FileNotFoundError:
            raise self.broken(path, "the index that the manifest names", "nothing", again=FORCE) from None

    def checked(self) -> Iterator[IndexEntry]:
        """Stream the index; its order, and what the manifest says of it in sum, are compared on the way."""
        manifest, tally, before, total, files = self.manifest, Tally(self), "", 0, 0
        for entry in self.entries():
            if entry.path <= before:
                raise self.broken(META, f"a path after {before!r} in the index", repr(entry.path), "it isn't sorted")
            before, total, files = entry.path, total + entry.bytes, files + 1
            if entry.label is not None:
                tally.add(entry.path, entry.bytes, entry.label)
            yield entry
        self.require(MANIFEST, f"{files:,} files, as in the index", f"{manifest.files:,} files")
        self.require(MANIFEST, f"{total:,} bytes, as in the index", f"{manifest.bytes:,} bytes")
        if manifest.samples is None:
            tally.compare()

    def require(
        self, path: str, expected: str | int, found: str | int, cause: str = "", *, again: str | None = None
    ) -> None:
        """Raise BrokenError, of the file `path` below the artifact, unless what was found is what was expected."""
        if expected != found:
            raise self.broken(path, str(expected), str(found), cause, again=again)

    def broken(self, path: str, expected: str, found: str, cause: str = "", *, again: str | None = None) -> BrokenError:
        """The error for a fault of the file `path` below the artifact, to be raised. See `fault`."""
        return self.fault(Fault(f"{self.place.name}/{path}", expected, found, cause), again=again)

    def fault(self, fault: Fault, *, again: str | None = None) -> BrokenError:
        """The error for a fault, to be raised; `again` follows the command that mends it.

        Without it, what lies on a volume is made anew with force; what lies in a store is only put right by `load`.
        """
        flags = again if again is not None else "" if self.link.in_store else FORCE
        return BrokenError(self.link, fault, next_step=f"run `{self.link.made_by}{flags}`, then this again")


class Tally:
    """Sums samples up, to compare them with what a manifest says of its splits."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact, self._classes = artifact, len(artifact.manifest.classes)
        self._found: dict[str, tuple[int, int, list[int]]] = {}

    def add(self, path: str, size: int, label: int) -> None:
        """A sample of `size` bytes. Raises BrokenError when there is no such class."""
        split = path.partition("/")[0]
        samples, total, per_class = self._found.get(split) or (0, 0, [0] * self._classes)
        if not 0 <= label < self._classes:
            raise self._artifact.broken(path, f"a class below {self._classes}", f"class {label}")
        per_class[label] += 1
        self._found[split] = samples + 1, total + size, per_class

    def compare(self) -> None:
        """Raise BrokenError unless this is what the manifest says."""
        said = self._artifact.manifest.splits
        for split in sorted(said.keys() | self._found.keys()):
            samples, total, per_class = self._found.get(split, (0, 0, [0] * self._classes))
            found = SplitSummary(samples=samples, bytes=total, samples_per_class=per_class)
            self._artifact.require(MANIFEST, f"{split}: {found}, as in the index", f"{split}: {said.get(split)}")


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a stream."""
    begun = b""
    for piece in pieces:
        *lines, begun = (begun + piece).split(b"\n")
        yield from lines
    if begun:
        yield begun


def _sha256(data: bytes) -> str:
    return f"sha256 {hashlib.sha256(data).hexdigest()}"
