"""Verify the links "shards" and "chunks" of the chain, on their volumes and in the store."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from larder.batches import batches
from larder.chunks import Extent
from larder.contract import META, IndexEntry, SampleEntry, parse_samples, samples_name
from larder.errors import InputError
from larder.progress import format_amount
from larder.shards import MEMBER_BYTES
from services.verify.chain import INDEX, OBJECTS, TREE_FILES, ArtifactRef, Chain
from services.verify.choice import Choice
from services.verify.files import missing_file_error, require_length
from services.verify.findings import BreakError, ChainBreak, VerifiedLink, changed_content_error
from services.verify.formats import PACK_FORMATS, Mismatch, NumberedSample, PackFormat
from services.verify.locations import Location, RangeReader, StoreLocation
from services.verify.sorted_index import SeenEntries
from services.verify.verified_artifact import (
    IndexedSample,
    VerifiedArtifact,
    fetch_index_file,
    require_counts,
    require_same_dataset,
    require_source,
)

# A pack that is read whole keeps the index lines of all its samples in memory, so batches of packs are small.
_PACKS_PER_BATCH, _STORE_PACKS_PER_BATCH = 1, 4
# If only some samples are read, those of one task share one read of a chunk's head.
_TASKS_PER_BATCH, _SAMPLES_PER_TASK = 64, 8
# All samples of a pack are in memory together, about 700 bytes each.
_MAX_SAMPLES_PER_PACK = 1_000_000


class IndexedPack(NamedTuple):
    """A shard or a chunk, with its samples in order of their offsets."""

    entry: IndexEntry
    samples: list[NumberedSample]


class PackTask(NamedTuple):
    """Samples to check, and the number of samples in the pack. If `whole`, these are all, and the file is hashed."""

    entry: IndexEntry
    samples: Sequence[NumberedSample]
    pack_samples: int
    whole: bool


class PackResult(NamedTuple):
    """Numbers of samples and bytes that were read."""

    samples: int
    bytes: int


def check_packs(ref: ArtifactRef, chain: Chain) -> VerifiedLink:
    """Check the index line of every sample against the tree's index, and the bytes of the chosen samples.

    A pack that is read whole must hold its samples back to back, nothing else, and have the index's sha256. Packs whose
    ETag has changed since they were sent are also read whole, up to the number of chosen samples: an ETag can change
    while the content doesn't.

    Raises:
        BreakError: At the first difference.
    """
    artifact = chain.require_artifact(ref)
    if artifact.manifest.input.get("kind") == "index":
        input_name, tree = "index", chain.find_artifact(INDEX)
    else:
        input_name, tree = "tree", chain.find_artifact(TREE_FILES)
        if tree is None and ref.in_store:
            tree = chain.find_artifact(OBJECTS)
    if tree is not None:
        require_source(artifact, tree.tree_digest, input_name)
        require_same_dataset(artifact, tree.manifest)
    if artifact.manifest.samples is None:
        raise BreakError(
            ChainBreak("the manifest names no index of samples", f"{artifact.location.name}/{META}/manifest.json")
        )
    file = fetch_index_file(artifact.location, samples_name(artifact.manifest), artifact.manifest.samples, chain.work)
    verifier = _PackVerifier(chain, artifact, file, PACK_FORMATS[ref.artifact])
    verifier.require_samples(tree)
    _require_copy(artifact, chain.find_artifact(ref._replace(in_store=False)) if ref.in_store else None)
    changed_packs = list[str]()
    for stored in artifact.location.stat_files(artifact.index):
        require_length(artifact.location, stored)
        if stored.etag != (stored.entry.etag or ""):
            changed_packs.append(stored.entry.path)
    extra_bytes = verifier.read_extras()
    choice = chain.choose(artifact, map(_indexed_sample, parse_samples(file)))
    suspect_packs = frozenset[str]() if choice.whole else verifier.select_packs(chain.settings.samples, changed_packs)
    result = verifier.read(choice, suspect_packs)
    remark = (
        f"{len(suspect_packs):,} of {format_amount(len(changed_packs), 'packs')} with other ETags read whole"
        if suspect_packs
        else ""
    )
    return VerifiedLink(result.samples, verifier.samples, "samples", result.bytes + extra_bytes, remark)


class _PackVerifier:
    """The packs (shards or chunks) of one artifact; `file` is its index of samples."""

    def __init__(self, chain: Chain, artifact: VerifiedArtifact, file: Path, pack_format: PackFormat) -> None:
        self._chain, self._artifact, self._file, self._pack_format = chain, artifact, file, pack_format
        self._where = f"{artifact.location.name}/{META}/{samples_name(artifact.manifest)}"
        self._extents: dict[str, Extent] = {}
        self.samples = sum(split.samples for split in artifact.manifest.splits.values())

    def require_samples(self, tree: VerifiedArtifact | None) -> None:
        """Raise BreakError unless each sample of the tree is packed once and matches the tree's index."""
        seen = None if tree is None else SeenEntries(tree.index)
        for pack in self._packs():
            if pack.entry.path in self._extents:
                raise self._index_error("a pack's samples aren't listed together", pack.entry.path)
            self._extents[pack.entry.path] = Extent(pack.entry.bytes, len(pack.samples))
            for _, sample in pack.samples:
                begin, end = self._pack_format.span(sample)
                if begin < self._pack_format.head_bytes(len(pack.samples)) or end > pack.entry.bytes:
                    raise self._index_error("a sample lies outside of its pack", sample.source)
                if sample.bytes > MEMBER_BYTES:
                    raise self._index_error("a sample is longer than any image", sample.source)
                if sample.source.partition("/")[0] != sample.file.partition("/")[0]:
                    raise self._index_error("a sample is packed in another split", sample.source)
                if tree is not None and seen is not None:
                    self._require_in_tree(sample, tree, seen)
        if tree is not None and seen is not None and (missing := seen.first_missing()) is not None:
            raise self._index_error(f"a sample of {tree.location.name} is not packed", missing.path)
        require_counts(self._artifact, map(_indexed_sample, parse_samples(self._file)), self._where)

    def _require_in_tree(self, sample: SampleEntry, tree: VerifiedArtifact, seen: SeenEntries) -> None:
        offset = tree.index.find_offset(sample.source)
        if offset is None:
            raise self._index_error(f"a sample isn't in {tree.location.name}", sample.source)
        entry = tree.index.entry_at(offset)
        if entry.sha256 != sample.sha256:
            raise changed_content_error(
                "the index of samples has another sha256 than the tree's",
                self._where,
                entry.sha256,
                sample.sha256,
                "the index was edited",
                sample.source,
            )
        if (entry.bytes, entry.label) != (sample.bytes, sample.label):
            raise BreakError(
                ChainBreak(
                    "the index of samples differs from the tree's",
                    self._where,
                    sample.source,
                    f"{entry.bytes:,} bytes, class {entry.label}",
                    f"{sample.bytes:,} bytes, class {sample.label}",
                )
            )
        if not seen.add(offset):
            raise self._index_error("a sample is packed twice", sample.source)

    def read_extras(self) -> int:
        """Check the small files beside the packs and return their total bytes. Raises BreakError for a wrong file."""
        read = 0
        location = self._artifact.location
        for entry in self._artifact.index:
            if entry.path in self._extents:
                continue
            folder, _, _ = entry.path.rpartition("/")
            where = f"{location.name}/{entry.path}"
            if entry.bytes > (max_bytes := self._pack_format.max_extra_file_bytes(len(self._extents))):
                raise BreakError(
                    ChainBreak(
                        "a file beside the packs is too long",
                        where,
                        expected=f"at most {max_bytes:,} bytes",
                        found=f"{entry.bytes:,} bytes",
                        cause="the index was edited",
                    )
                )
            data = location.read(entry.path, entry.bytes)
            if data is None:
                raise missing_file_error(location, entry.path)
            if (digest := hashlib.sha256(data).hexdigest()) != entry.sha256:
                raise changed_content_error(
                    "a file's content differs from the index", where, entry.sha256, digest, location.cause
                )
            inside = {
                path.removeprefix(f"{folder}/"): extent
                for path, extent in self._extents.items()
                if path.startswith(f"{folder}/")
            }
            if (mismatch := self._pack_format.check_extra_file(data, inside)) is not None:
                raise _mismatch_error(mismatch, where, "")
            read += len(data)
        return read

    def select_packs(self, samples: int, paths: Sequence[str]) -> frozenset[str]:
        """Return the first packs of `paths` that have at most `samples` samples together, but at least one pack."""
        packs, left = set[str](), samples
        for path in filter(self._extents.__contains__, paths):
            left -= self._extents[path].samples
            if packs and left < 0:
                break
            packs.add(path)
        return frozenset(packs)

    def read(self, choice: Choice, suspect_packs: Set[str]) -> PackResult:
        """Read the chosen samples, and the packs in `suspect_packs` whole.

        Raises BreakError for the first wrong sample, in the order of packs and offsets.
        """
        check = functools.partial(check_pack, self._artifact.location, self._pack_format)
        total = self.samples if choice.paths is None else len(choice.paths)
        samples = read = 0
        spread = self._chain.spread(self._artifact.location, batch=self._batch(choice))
        with self._chain.reporter.task(self._artifact.manifest.artifact, total, "samples") as task:
            for done in spread(check, self._tasks(choice, suspect_packs)):
                samples, read = samples + done.samples, read + done.bytes
                task.advance(done.samples)
        return PackResult(samples, read)

    def _batch(self, choice: Choice) -> int:
        if not choice.whole:
            return _TASKS_PER_BATCH
        return _STORE_PACKS_PER_BATCH if isinstance(self._artifact.location, StoreLocation) else _PACKS_PER_BATCH

    def _tasks(self, choice: Choice, suspect_packs: Set[str]) -> Iterator[PackTask]:
        for entry, samples in self._packs():
            if choice.whole or entry.path in suspect_packs:
                yield PackTask(entry, samples, len(samples), True)
                continue
            chosen = (numbered for numbered in samples if numbered.sample.source in choice)
            for group in batches(chosen, _SAMPLES_PER_TASK):
                yield PackTask(entry, group, len(samples), False)

    def _packs(self) -> Iterator[IndexedPack]:
        for path, group in itertools.groupby(self._read_samples(), key=lambda sample: sample.file):
            entry = self._artifact.index.find(path)
            if entry is None:
                raise self._index_error("a sample lies in a file that the index doesn't name", path)
            samples = [NumberedSample(*pair) for pair in enumerate(itertools.islice(group, _MAX_SAMPLES_PER_PACK + 1))]
            if len(samples) > _MAX_SAMPLES_PER_PACK:
                raise self._index_error(f"a pack has more than {_MAX_SAMPLES_PER_PACK:,} samples", path)
            yield IndexedPack(entry, samples)

    def _read_samples(self) -> Iterator[SampleEntry]:
        try:
            yield from parse_samples(self._file, "the index of samples")
        except InputError as fault:
            raise self._index_error(fault.what, "") from None

    def _index_error(self, what: str, sample: str) -> BreakError:
        return BreakError(ChainBreak(what, self._where, sample, cause="the index was edited"))


def check_pack(location: Location, pack_format: PackFormat, task: PackTask) -> PackResult:
    """Check a pack, or some of its samples. Raises BreakError at the first fault."""
    result = location.read_parts(
        task.entry.path, task.whole, functools.partial(_check_parts, location, pack_format, task)
    )
    if result is None:
        raise missing_file_error(location, task.entry.path)
    return result


def _check_parts(location: Location, pack_format: PackFormat, task: PackTask, read_range: RangeReader) -> PackResult:
    where, entry = f"{location.name}/{task.entry.path}", task.entry
    at = pack_format.head_bytes(task.pack_samples)
    head = read_range(0, at) if at else b""
    if (mismatch := pack_format.check_head(head, task.pack_samples, task.samples)) is not None:
        raise _mismatch_error(mismatch, where, location.cause)
    file_digest, read = hashlib.sha256(head), len(head)
    for _, sample in task.samples:
        begin, end = pack_format.span(sample)
        if task.whole and begin != at:
            raise BreakError(ChainBreak("samples aren't contiguous", f"{where}, byte {at:,}", sample.source))
        data = read_range(begin, end)
        _require_sample(location, pack_format, sample, begin, end, data)
        file_digest.update(data)
        at, read = end, read + len(data)
    if task.whole:
        tail = read_range(at, min(entry.bytes, at + len(pack_format.tail)) + 1)
        file_digest.update(tail)
        read += len(tail)
        if tail != pack_format.tail:
            raise BreakError(ChainBreak("the file doesn't end after its last sample", f"{where}, byte {at:,}"))
        if file_digest.hexdigest() != entry.sha256:
            raise changed_content_error(
                "a file's content differs from the index", where, entry.sha256, file_digest.hexdigest(), location.cause
            )
    return PackResult(len(task.samples), read)


def _require_sample(
    location: Location, pack_format: PackFormat, sample: SampleEntry, begin: int, end: int, data: bytes
) -> None:
    where = f"{location.name}/{sample.file}, bytes {sample.offset:,} to {sample.offset + sample.bytes:,}"
    image = data[sample.offset - begin : sample.offset - begin + sample.bytes]
    if (digest := hashlib.sha256(image).hexdigest()) != sample.sha256:
        raise changed_content_error(
            "the bytes of an image have changed", where, sample.sha256, digest, location.cause, sample.source
        )
    mismatch = (
        pack_format.check_frame(data, sample) if len(data) == end - begin else Mismatch("the file ends in a sample")
    )
    if mismatch is not None:
        around = f"{location.name}/{sample.file}, bytes {begin:,} to {end:,}"
        raise _mismatch_error(mismatch, around, location.cause, sample.source)


def _mismatch_error(mismatch: Mismatch, where: str, cause: str, sample: str = "") -> BreakError:
    return BreakError(ChainBreak(mismatch.what, where, sample, mismatch.expected, mismatch.found, cause))


def _require_copy(artifact: VerifiedArtifact, local: VerifiedArtifact | None) -> None:
    """Raise BreakError if packs in the store have the manifest of those on the volume, but other content."""
    if local is None or local.manifest.stored(artifact.manifest.index) != artifact.manifest:
        return
    for entry in artifact.index:
        on_volume = local.index.find(entry.path)
        if on_volume is None or (on_volume.bytes, on_volume.sha256) != (entry.bytes, entry.sha256):
            expected = "no such file" if on_volume is None else f"sha256 {on_volume.sha256}"
            raise BreakError(
                ChainBreak(
                    "the index names another file than the volume's",
                    f"{artifact.location.name}/{entry.path}",
                    expected=expected,
                    found=f"sha256 {entry.sha256}",
                    cause="the index was edited",
                )
            )


def _indexed_sample(sample: SampleEntry) -> IndexedSample:
    return IndexedSample(sample.source, sample.bytes, sample.label)
