"""Unpack a source into a folder, within limits, resumable, and hashed while writing."""

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
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import Member, Source, quote_name, unsafe_source_error
from larder.volume import require_space
from services.extract.links import DuplicateMemberError, LinkResolver, add_to_ledger, path_conflict_error

_BATCH_FILES = 64
_BATCH_BYTES = 8 << 20


def unpack(
    source: Source, folder: Path, ledger: Ledger, engine: Engine, reporter: Reporter, limits: SourceLimits
) -> None:
    """Write every file of `source` below `folder` and its entry into `ledger`. Skip files that the ledger has.

    Raises InputError if the source is unsafe, damaged or beyond the limits, StorageError if the disk is too small.
    """
    total = source.total
    if source.sizes_known:
        listed = ReadMeter(source.name, limits)
        with reporter.task("list", None, "files") as task:
            for member in source.scan():
                listed.count_file(member.bytes)
                task.advance()
        total = listed.files
        require_space(folder, listed.bytes - sum(entry.bytes for entry in ledger.entries()), f"{source.name}, unpacked")
    meter = ReadMeter(source.name, limits)
    done = len(ledger)
    with (
        _name_origins(source),
        LinkResolver(source.name, folder, ledger, meter) as links,
        reporter.task(source.action, total, "files", done=done) as task,
    ):
        files = _without_links(source.scan(), links, meter)
        todo = _missing(files, ledger, source.name) if done else files
        store = functools.partial(_store_batch, source, folder)
        if not source.parallel:
            engine = LocalEngine(1)
        with engine(store, _batches(todo, one_by_one=not source.parallel)) as results:
            for entries in results:
                add_to_ledger(ledger, entries, source.name)
                task.advance(len(entries))
        links.make_links(resumed=done > 0)


@contextmanager
def _name_origins(source: Source) -> Iterator[None]:
    """Name the archives in the error for a path that several archives hold."""
    try:
        yield
    except DuplicateMemberError as error:
        origins = source.find_origins(error.path) if hasattr(source, "find_origins") else []
        if len(origins) < 2:
            raise
        names = " and from ".join(map(quote_name, origins))
        raise unsafe_source_error(source.name, error.path, f"is in it twice: from {names}") from None


def _without_links(members: Iterable[Member], links: LinkResolver, meter: ReadMeter) -> Iterator[Member]:
    """Yield members with content, and add links to `links`. The meter counts both."""
    for member in members:
        meter.count_file(member.bytes)
        if member.link is None:
            yield member
        else:
            links.add(member.path, member.link)


def _missing(members: Iterable[Member], ledger: Ledger, source: str) -> Iterator[Member]:
    """Yield members that no earlier run has stored. Refuse duplicate paths, as that run would have."""
    ledger.clear_claims()
    for number, member in enumerate(members):
        if ledger.claim(member.path, str(number)) != str(number):
            raise DuplicateMemberError(source, member.path)
        if member.path not in ledger:
            yield member


def _batches(members: Iterable[Member], one_by_one: bool) -> Iterator[Sequence[Member]]:
    """Group members into batches large enough for a worker."""
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
    """Write and hash one file."""
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
        raise path_conflict_error(source, name) from None


def _write(descriptor: int, chunk: bytes) -> None:
    written = os.write(descriptor, chunk)
    while written < len(chunk):  # on a nearly full disk, the first write may be partial
        written += os.write(descriptor, chunk[written:])
