"""The links raw and tree: files on the data volume, and the link objects: the same in the store."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from larder.contract import META, IndexEntry, index_name
from larder.packing.source import IndexedSource
from services.verify.chain import INDEX, OBJECTS, RAW_FILES, TREE_FILES, Chain
from services.verify.choice import Choice
from services.verify.findings import BreakError, Checked, Fault, changed
from services.verify.paper import Paper, require_counts, require_same, require_source, sample_of
from services.verify.places import Look, Place, StorePlace


def raw(chain: Chain) -> Checked:
    """Every file that extract left: there with its length; those that are chosen, by their sha256."""
    paper, tree = chain.paper(RAW_FILES), chain.known(TREE_FILES)
    choice = chosen_of_raw(chain, paper, tree)
    jobs = (Job(entry, entry.path in choice) for entry in paper.index)
    return _read_files(chain, paper, jobs, "files")


def chosen_of_raw(chain: Chain, raw: Paper, tree: Paper | None) -> Choice:
    """What is read of raw: the files that the tree's chosen samples were made from."""
    if tree is None:
        return chain.choose(raw, map(sample_of, raw.index))
    choice = chain.choose(tree, map(sample_of, tree.index))
    if choice.whole:
        return choice
    return Choice(frozenset(entry.source or "" for entry in tree.index if entry.path in choice))


def tree(chain: Chain) -> Checked:
    """Every sample: made from a file of raw with the same sha256, in the folder of its class, in place.

    What is raw's file under another name isn't read twice.
    """
    paper, raw = chain.paper(TREE_FILES), chain.known(RAW_FILES)
    if raw is not None:
        require_source(paper, raw.manifest.digest(), "raw")
        _require_same_data(paper, raw)
    _require_classes(paper)
    choice = chain.choose(paper, map(sample_of, paper.index))
    twins = raw.place.name if raw is not None and RAW_FILES in chain.sound else ""
    jobs = (Job(entry, entry.path in choice, twins and f"{twins}/{entry.source}") for entry in paper.index)
    return _read_files(chain, paper, jobs, "samples")


def objects(chain: Chain) -> Checked:
    """Every object: what the tree's index says, listed with its length; those that are chosen, fetched and hashed.

    One with another ETag than load noted is fetched, too: ETags can change where bytes don't.
    """
    paper, tree = chain.paper(OBJECTS), chain.known(TREE_FILES)
    if tree is not None:
        require_source(paper, tree.tree_digest, "tree")
        require_same(paper, tree.manifest)
        _require_same_entries(paper, tree)
    _require_classes(paper)
    choice = chain.choose(paper, map(sample_of, paper.index))
    others: list[IndexEntry] = []
    with chain.reporter.task("objects: listing", paper.manifest.files, "objects") as task:
        for look in paper.place.look(paper.index):
            require_length(paper.place, look)
            task.advance()
            if look.etag != look.entry.etag and look.entry.path not in choice and len(others) < chain.settings.samples:
                others.append(look.entry)
    entries = (entry for some in (_chosen(paper, choice), others) for entry in some)
    checked = _read_objects(chain, paper, entries)
    return checked._replace(remark=f"{len(others):,} of them for their ETags" if others else "")


def indexed(chain: Chain) -> Checked:
    """Every image of an index: in the folder of its class; those that are chosen, fetched from where they lie."""
    paper = chain.paper(INDEX)
    _require_classes(paper)
    choice = chain.choose(paper, map(sample_of, paper.index))
    return _read_objects(chain, paper, _chosen(paper, choice), require_indexed)


class Job(NamedTuple):
    """A file to look at."""

    entry: IndexEntry
    chosen: bool
    twin: str = ""
    """A file that was found right, and may be the same one under another name."""


class Done(NamedTuple):
    """What was read of a file; a twin needn't be."""

    looked_at: int = 0
    bytes: int = 0
    twins: int = 0


def _read_files(chain: Chain, paper: Paper, jobs: Iterator[Job], unit: str) -> Checked:
    spread = chain.spread(paper.place)
    check = functools.partial(check_file, paper.place)
    looked_at = read = twins = 0
    with chain.reporter.task(paper.manifest.artifact, paper.manifest.files, unit) as task:
        for done in spread(check, jobs):
            looked_at, read, twins = looked_at + done.looked_at, read + done.bytes, twins + done.twins
            task.advance()
    remark = f"{'all' if twins == looked_at else f'{twins:,}'} the same files as raw's" if twins else ""
    return Checked(looked_at, paper.manifest.files, unit, read, remark)


def check_file(place: Place, job: Job) -> Done:
    """Raises BreakError when a file isn't there, has another length or, if it was chosen, another sha256."""
    path = Path(place.name, job.entry.path)
    try:
        facts = path.stat(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        facts = None
    require_length(place, Look(job.entry, None if facts is None else facts.st_size))
    if not job.chosen:
        return Done()
    if job.twin and facts is not None and os.path.samestat(facts, os.stat(job.twin)):
        return Done(1, 0, 1)
    return Done(1, require_content(place, job.entry))


def require_length(place: Place, look: Look) -> None:
    """Raise BreakError for a file that isn't there, or has another length than the index says."""
    entry, where = look.entry, f"{place.name}/{look.entry.path}"
    if look.bytes is None:
        raise gone(place, entry.path)
    if look.bytes != entry.bytes:
        raise BreakError(
            Fault("a file has another length than the index says", where, entry.path, f"{entry.bytes:,} bytes",
                  f"{look.bytes:,} bytes", place.cause, forced=False)
        )  # fmt: skip


def gone(place: Place, path: str) -> BreakError:
    """The error for a file that the index names and that isn't there."""
    return BreakError(
        Fault("a file that the index names isn't there", f"{place.name}/{path}", cause="it was deleted", forced=False)
    )


def require_content(place: Place, entry: IndexEntry) -> int:
    """Read a file and return its length. Raises BreakError when it has another sha256 than the index says."""
    found = place.digest(entry.path, entry.bytes)
    if found is None:
        raise gone(place, entry.path)
    if found != (entry.bytes, entry.sha256):
        where = f"{place.name}/{entry.path}"
        raise changed("a file isn't what the index says", where, entry.sha256, found[1], place.cause, entry.path)
    return entry.bytes


def _chosen(paper: Paper, choice: Choice) -> Iterator[IndexEntry]:
    return (entry for entry in paper.index if entry.path in choice)


def require_indexed(place: Place, entry: IndexEntry) -> int:
    """Read an image from where an index says that it lies, and return its length.

    Raises InputError when it isn't what the index says.
    """
    if not isinstance(place, StorePlace):
        raise ValueError("an index lies in a store")
    source = IndexedSource(place.settings, place.folder)
    if hashlib.sha256(source.read(entry)).hexdigest() != entry.sha256:
        raise source.changed(entry, "has changed")
    return entry.bytes


def _read_objects(
    chain: Chain, paper: Paper, entries: Iterator[IndexEntry],
    require: Callable[[Place, IndexEntry], int] = require_content,
) -> Checked:  # fmt: skip
    check = functools.partial(require, paper.place)
    looked_at = read = 0
    with chain.reporter.task(paper.manifest.artifact, None, "objects") as task:
        for size in chain.spread(paper.place)(check, entries):
            looked_at, read = looked_at + 1, read + size
            task.advance()
    return Checked(looked_at, paper.manifest.files, "samples", read)


def _require_same_data(paper: Paper, raw: Paper) -> None:
    where = _index_of(paper)
    for entry in paper.index:
        before = raw.index.find(entry.source or "")
        if before is None:
            raise BreakError(
                Fault("a sample's source is no file of raw", where, entry.path, found=f"source {entry.source!r}")
            )
        if before.sha256 != entry.sha256:
            raise changed("the tree's index has another sha256 than raw's", where, before.sha256, entry.sha256,
                          "the index was edited", entry.path)  # fmt: skip


def _require_same_entries(paper: Paper, tree: Paper) -> None:
    for entry in paper.index:
        before = tree.index.find(entry.path)
        if before is None or entry._replace(etag=None) != before:
            expected = "no such sample" if before is None else before.to_json()
            raise BreakError(
                Fault("the objects' index says something else than the tree's", _index_of(paper), entry.path, expected,
                      entry.to_json(), "the index was edited")
            )  # fmt: skip


def _require_classes(paper: Paper) -> None:
    """Each sample lies in the folder of its class, and the manifest's counts are right."""
    where = _index_of(paper)
    for entry in paper.index:
        if not re.fullmatch(rf"[^/]+/class_0*{entry.label}/[^/]+", entry.path):
            raise BreakError(
                Fault("a sample lies in the folder of another class", where, entry.path, found=f"class {entry.label}")
            )
    require_counts(paper, map(sample_of, paper.index), where)


def _index_of(paper: Paper) -> str:
    return f"{paper.place.name}/{META}/{index_name(paper.manifest)}"
