"""Unpacking a source into a folder: bounded, resumable, hashed as it is written."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from larder.contract import IndexEntry
from larder.engines import Engine
from larder.engines.local import LocalEngine
from larder.ledger import Ledger
from larder.progress import Reporter
from larder.sources.limits import Limits, Meter
from larder.sources.members import Member, Source, refuse, shown
from larder.volume import require_space
from services.extract.links import LinkedFiles, TwiceError, clash, record

_BATCH_FILES = 64
_BATCH_BYTES = 8 << 20


def unpack(
    source: Source, folder: Path, ledger: Ledger, engine: Engine, reporter: Reporter, max_files: int, max_bytes: int
) -> None:
    """Write every file of `source` below `folder` and its entry into `ledger`; those that are in it are skipped.

    Raises InputError for a source that is unsafe, damaged, or beyond the limits, StorageError when the disk is too
    small.
    """
    total = source.total
    limits = Limits(max_files, max_bytes)
    if source.counted:
        census = Meter(source.name, limits)
        with reporter.task("list", None, "files") as task:
            for member in source.scan():
                census.count(member.bytes)
                task.advance()
        total = census.files
        require_space(folder, census.bytes - sum(entry.bytes for entry in ledger.entries()), f"{source.name}, unpacked")
    meter = Meter(source.name, limits)
    done = len(ledger)
    with (
        _holders_named(source),
        LinkedFiles(source.name, folder, ledger, meter) as links,
        reporter.task(source.verb, total, "files", done=done) as task,
    ):
        files = _without_links(source.scan(), links, meter)
        todo = _missing(files, ledger, source.name) if done else files
        store = functools.partial(_store_batch, source, folder)
        if not source.parallel:
            engine = LocalEngine(1)
        with engine(store, _batches(todo, one_by_one=not source.parallel)) as results:
            for entries in results:
                record(ledger, entries, source.name)
                task.advance(len(entries))
        links.make(resumed=done > 0)


@contextmanager
def _holders_named(source: Source) -> Iterator[None]:
    """Name the archives that a path comes from twice, where there are several."""
    try:
        yield
    except TwiceError as error:
        holders = source.holders(error.path) if hasattr(source, "holders") else []
        if len(holders) < 2:
            raise
        which = " and from ".join(map(shown, holders))
        raise refuse(source.name, error.path, f"is in it twice: from {which}") from None


def _without_links(members: Iterable[Member], links: LinkedFiles, meter: Meter) -> Iterator[Member]:
    """The members that have bytes; the others are put into `links`. All are counted."""
    for member in members:
        meter.count(member.bytes)
        if member.link is None:
            yield member
        else:
            links.add(member.path, member.link)


def _missing(members: Iterable[Member], ledger: Ledger, source: str) -> Iterator[Member]:
    """The members that an earlier run has not stored; a path that comes twice is refused, as that run would have."""
    ledger.disclaim()
    for number, member in enumerate(members):
        if ledger.claim(member.path, str(number)) != str(number):
            raise TwiceError(source, member.path)
        if member.path not in ledger:
            yield member


def _batches(members: Iterable[Member], one_by_one: bool) -> Iterator[Sequence[Member]]:
    """Members in groups that are worth sending to a worker."""
    if one_by_one:
        yield from ([member] for member in members)
        return
    batch: list[Member] = []
    for member in members:
        batch.append(member)
        if len(batch) == _BATCH_FILES or sum(max(item.bytes, 0) for item in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _store_batch(source: Source, folder: Path, members: Sequence[Member]) -> list[IndexEntry]:
    threads = min(getattr(source, "threads", 1), len(members))
    if threads < 2:
        return [_store(source, folder, member) for member in members]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(functools.partial(_store, source, folder), members))


def _store(source: Source, folder: Path, member: Member) -> IndexEntry:
    """Write one file and hash it on the way."""
    path = os.path.join(folder, member.path)
    digest, length = hashlib.sha256(), 0
    descriptor = _create(path, source.name, member.path)
    try:
        for chunk in source.read(member):
            digest.update(chunk)
            length += len(chunk)
            _write(descriptor, chunk)
    finally:
        os.close(descriptor)
    return IndexEntry(member.path, length, digest.hexdigest())


def _create(path: str, source: str, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            return os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return os.open(path, flags, 0o644)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise clash(source, name) from None


def _write(descriptor: int, chunk: bytes) -> None:
    written = os.write(descriptor, chunk)
    while written < len(chunk):  # a nearly full disk takes a part first
        written += os.write(descriptor, chunk[written:])
