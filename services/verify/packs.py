"""The links shards and chunks, on their volumes and in the store."""

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
from larder.progress import amount
from larder.shards import MEMBER_BYTES
from services.verify.chain import INDEX, OBJECTS, TREE_FILES, Chain, Kept
from services.verify.choice import Choice
from services.verify.files import gone, require_length
from services.verify.findings import BreakError, Checked, Fault, changed
from services.verify.formats import FORMATS, Format, Mismatch, Numbered
from services.verify.index import Marks
from services.verify.paper import Paper, Sample, require_counts, require_file, require_same, require_source
from services.verify.places import Place, StorePlace, Take

_PACKS_OF_A_BATCH, _TASKS_OF_A_BATCH = 1, 64
"""Of packs that are read whole, few wait in memory with all their samples."""
_STREAMS_OF_A_BATCH = 4
_SAMPLES_OF_A_TASK = 8
"""Where not all are read: they share the reading of a chunk's head."""
_MOST_SAMPLES = 1_000_000
"""Of a pack: they are in memory together, some 700 bytes each."""


class Pack(NamedTuple):
    """A shard or a chunk, and its samples in the order in which they lie."""

    entry: IndexEntry
    samples: list[Numbered]


class Task(NamedTuple):
    """Samples of a pack to look at, out of so many; `whole`: all of them, and the rest of the file."""

    entry: IndexEntry
    samples: Sequence[Numbered]
    of: int
    whole: bool


class Done(NamedTuple):
    """What was read."""

    samples: int
    bytes: int


def packs(kept: Kept, chain: Chain) -> Checked:
    """Every sample: what the tree's index says, in a pack that is there; those that are chosen, by their bytes.

    Read whole, a pack holds its samples one after the other and nothing else, and has its own sha256, too. So are some
    with another ETag than when they were sent, with as many samples as are chosen: ETags can change where bytes don't.
    """
    paper = chain.paper(kept)
    if paper.manifest.input.get("kind") == "index":
        before, tree = "index", chain.known(INDEX)
    else:
        before, tree = "tree", chain.known(TREE_FILES) or (chain.known(OBJECTS) if kept.in_store else None)
    if tree is not None:
        require_source(paper, tree.tree_digest, before)
        require_same(paper, tree.manifest)
    if paper.manifest.samples is None:
        raise BreakError(Fault("the manifest names no index of samples", f"{paper.place.name}/{META}/manifest.json"))
    file = require_file(paper.place, samples_name(paper.manifest), paper.manifest.samples, chain.work)
    link = _Packs(chain, paper, file, FORMATS[kept.artifact])
    link.require_samples(tree)
    _require_copy(paper, chain.known(kept._replace(in_store=False)) if kept.in_store else None)
    others = list[str]()
    for look in paper.place.look(paper.index):
        require_length(paper.place, look)
        if look.etag != (look.entry.etag or ""):
            others.append(look.entry.path)
    extras = link.read_extras()
    choice = chain.choose(paper, map(_sample_of, parse_samples(file)))
    doubted = frozenset[str]() if choice.whole else link.within(chain.settings.samples, others)
    done = link.read(choice, doubted)
    remark = f"{len(doubted):,} of {amount(len(others), 'packs')} with other ETags read whole" if doubted else ""
    return Checked(done.samples, link.samples, "samples", done.bytes + extras, remark)


class _Packs:
    """The packs of one artifact; `file` is its index of samples."""

    def __init__(self, chain: Chain, paper: Paper, file: Path, form: Format) -> None:
        self._chain, self._paper, self._file, self._form = chain, paper, file, form
        self._where = f"{paper.place.name}/{META}/{samples_name(paper.manifest)}"
        self._extents: dict[str, Extent] = {}
        self.samples = sum(split.samples for split in paper.manifest.splits.values())

    def require_samples(self, tree: Paper | None) -> None:
        """Raise BreakError unless each sample of the tree is packed once, and is what the tree's index says."""
        met = None if tree is None else Marks(tree.index)
        for pack in self._packs():
            if pack.entry.path in self._extents:
                raise self._wrong("a pack's samples aren't listed together", pack.entry.path)
            self._extents[pack.entry.path] = Extent(pack.entry.bytes, len(pack.samples))
            for _, sample in pack.samples:
                begin, end = self._form.span(sample)
                if begin < self._form.head_bytes(len(pack.samples)) or end > pack.entry.bytes:
                    raise self._wrong("a sample lies outside of its pack", sample.source)
                if sample.bytes > MEMBER_BYTES:
                    raise self._wrong("a sample is longer than any image", sample.source)
                if sample.source.partition("/")[0] != sample.file.partition("/")[0]:
                    raise self._wrong("a sample is packed in another split", sample.source)
                if tree is not None and met is not None:
                    self._require_in_tree(sample, tree, met)
        if tree is not None and met is not None and (missing := met.first_missing()) is not None:
            raise self._wrong(f"a sample of {tree.place.name} is not packed", missing.path)
        require_counts(self._paper, map(_sample_of, parse_samples(self._file)), self._where)

    def _require_in_tree(self, sample: SampleEntry, tree: Paper, met: Marks) -> None:
        place = tree.index.place(sample.source)
        if place is None:
            raise self._wrong(f"a sample is none of {tree.place.name}", sample.source)
        entry = tree.index.at(place)
        if entry.sha256 != sample.sha256:
            raise changed("the index of samples has another sha256 than the tree's", self._where, entry.sha256,
                          sample.sha256, "the index was edited", sample.source)  # fmt: skip
        if (entry.bytes, entry.label) != (sample.bytes, sample.label):
            raise BreakError(
                Fault("the index of samples says something else than the tree's", self._where, sample.source,
                      f"{entry.bytes:,} bytes, class {entry.label}", f"{sample.bytes:,} bytes, class {sample.label}")
            )  # fmt: skip
        if not met.add(place):
            raise self._wrong("a sample is packed twice", sample.source)

    def read_extras(self) -> int:
        """Read the small files beside the packs; how many bytes they have. Raises BreakError for one that is wrong."""
        read = 0
        place = self._paper.place
        for entry in self._paper.index:
            if entry.path in self._extents:
                continue
            folder, _, _ = entry.path.rpartition("/")
            where = f"{place.name}/{entry.path}"
            if entry.bytes > (most := self._form.most_extra_bytes(len(self._extents))):
                raise BreakError(Fault("a file beside the packs is too long", where, "", f"at most {most:,} bytes",
                                       f"{entry.bytes:,} bytes", "the index was edited"))  # fmt: skip
            data = place.read(entry.path, entry.bytes)
            if data is None:
                raise gone(place, entry.path)
            if (digest := hashlib.sha256(data).hexdigest()) != entry.sha256:
                raise changed("a file isn't what the index says", where, entry.sha256, digest, place.cause)
            inside = {path.removeprefix(f"{folder}/"): extent for path, extent in self._extents.items()
                      if path.startswith(f"{folder}/")}  # fmt: skip
            if (wrong := self._form.extra(data, inside)) is not None:
                raise _broken(wrong, where, "")
            read += len(data)
        return read

    def within(self, samples: int, paths: Sequence[str]) -> frozenset[str]:
        """The first of these packs that hold so many samples together, and one at least."""
        found, left = set[str](), samples
        for path in filter(self._extents.__contains__, paths):
            left -= self._extents[path].samples
            if found and left < 0:
                break
            found.add(path)
        return frozenset(found)

    def read(self, choice: Choice, others: Set[str]) -> Done:
        """Read what is chosen, and `others`, packs by their paths, whole.

        Raises BreakError at the first sample, in the order in which they lie, that is wrong.
        """
        check = functools.partial(check_pack, self._paper.place, self._form)
        total = self.samples if choice.paths is None else len(choice.paths)
        samples = read = 0
        spread = self._chain.spread(self._paper.place, batch=self._batch(choice))
        with self._chain.reporter.task(self._paper.manifest.artifact, total, "samples") as task:
            for done in spread(check, self._tasks(choice, others)):
                samples, read = samples + done.samples, read + done.bytes
                task.advance(done.samples)
        return Done(samples, read)

    def _batch(self, choice: Choice) -> int:
        if not choice.whole:
            return _TASKS_OF_A_BATCH
        return _STREAMS_OF_A_BATCH if isinstance(self._paper.place, StorePlace) else _PACKS_OF_A_BATCH

    def _tasks(self, choice: Choice, others: Set[str]) -> Iterator[Task]:
        for entry, samples in self._packs():
            if choice.whole or entry.path in others:
                yield Task(entry, samples, len(samples), True)
                continue
            some = (numbered for numbered in samples if numbered.sample.source in choice)
            for few in batches(some, _SAMPLES_OF_A_TASK):
                yield Task(entry, few, len(samples), False)

    def _packs(self) -> Iterator[Pack]:
        for path, group in itertools.groupby(self._listed(), key=lambda sample: sample.file):
            entry = self._paper.index.find(path)
            if entry is None:
                raise self._wrong("a sample lies in a file that the index doesn't name", path)
            samples = [Numbered(*pair) for pair in enumerate(itertools.islice(group, _MOST_SAMPLES + 1))]
            if len(samples) > _MOST_SAMPLES:
                raise self._wrong(f"a pack has more than {_MOST_SAMPLES:,} samples", path)
            yield Pack(entry, samples)

    def _listed(self) -> Iterator[SampleEntry]:
        try:
            yield from parse_samples(self._file, "the index of samples")
        except InputError as fault:
            raise self._wrong(fault.what, "") from None

    def _wrong(self, what: str, sample: str) -> BreakError:
        return BreakError(Fault(what, self._where, sample, cause="the index was edited"))


def check_pack(place: Place, form: Format, task: Task) -> Done:
    """Read a pack, or some of its samples. Raises BreakError for what is wrong in it."""
    done = place.parts(task.entry.path, task.whole, functools.partial(_check, place, form, task))
    if done is None:
        raise gone(place, task.entry.path)
    return done


def _check(place: Place, form: Format, task: Task, take: Take) -> Done:
    where, entry = f"{place.name}/{task.entry.path}", task.entry
    at = form.head_bytes(task.of)
    head = take(0, at) if at else b""
    if (wrong := form.head(head, task.of, task.samples)) is not None:
        raise _broken(wrong, where, place.cause)
    whole, read = hashlib.sha256(head), len(head)
    for _, sample in task.samples:
        begin, end = form.span(sample)
        if task.whole and begin != at:
            raise BreakError(Fault("samples don't lie one after the other", f"{where}, byte {at:,}", sample.source))
        data = take(begin, end)
        _require_sample(place, form, sample, begin, end, data)
        whole.update(data)
        at, read = end, read + len(data)
    if task.whole:
        tail = take(at, min(entry.bytes, at + len(form.tail)) + 1)
        whole.update(tail)
        read += len(tail)
        if tail != form.tail:
            raise BreakError(Fault("the file doesn't end after its last sample", f"{where}, byte {at:,}"))
        if whole.hexdigest() != entry.sha256:
            raise changed("a file isn't what the index says", where, entry.sha256, whole.hexdigest(), place.cause)
    return Done(len(task.samples), read)


def _require_sample(place: Place, form: Format, sample: SampleEntry, begin: int, end: int, data: bytes) -> None:
    where = f"{place.name}/{sample.file}, bytes {sample.offset:,} to {sample.offset + sample.bytes:,}"
    image = data[sample.offset - begin : sample.offset - begin + sample.bytes]
    if (digest := hashlib.sha256(image).hexdigest()) != sample.sha256:
        raise changed("the bytes of an image have changed", where, sample.sha256, digest, place.cause, sample.source)
    wrong = form.frame(data, sample) if len(data) == end - begin else Mismatch("the file ends in a sample")
    if wrong is not None:
        around = f"{place.name}/{sample.file}, bytes {begin:,} to {end:,}"
        raise _broken(wrong, around, place.cause, sample.source)


def _broken(wrong: Mismatch, where: str, cause: str, sample: str = "") -> BreakError:
    return BreakError(Fault(wrong.what, where, sample, wrong.expected, wrong.found, cause))


def _require_copy(paper: Paper, local: Paper | None) -> None:
    """Raise BreakError when packs in the store were made as those on the volume were, and are others."""
    if local is None or local.manifest.stored(paper.manifest.index) != paper.manifest:
        return
    for entry in paper.index:
        here = local.index.find(entry.path)
        if here is None or (here.bytes, here.sha256) != (entry.bytes, entry.sha256):
            expected = "no such file" if here is None else f"sha256 {here.sha256}"
            raise BreakError(
                Fault("the index names another file than the volume's", f"{paper.place.name}/{entry.path}", "",
                      expected, f"sha256 {entry.sha256}", "the index was edited")
            )  # fmt: skip


def _sample_of(sample: SampleEntry) -> Sample:
    return Sample(sample.source, sample.bytes, sample.label)
