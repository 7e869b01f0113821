"""Unpacking a source into a folder: bounded, resumable, hashed as it is written."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from larder.contract import IndexEntry
from larder.engines import Engine
from larder.engines.local import LocalEngine
from larder.errors import InputError
from larder.ledger import Ledger
from larder.progress import Reporter, amount
from larder.sources.members import BadSourceError, Member, Source, refuse
from larder.volume import require_space

_BATCH_FILES = 64
_BATCH_BYTES = 8 << 20


class TooLargeError(InputError):
    """A source that unpacks to more than is allowed."""


class Limits:
    """Refuses a source that holds more than is stated."""

    def __init__(self, source: str, max_files: int, max_bytes: int) -> None:
        self._source, self._max_files, self._max_bytes = source, max_files, max_bytes
        self.files = self.bytes = 0

    def count(self, member: Member) -> Member:
        """Add a member. Raises TooLargeError at the first one beyond a limit."""
        self.files, self.bytes = self.files + 1, self.bytes + max(member.bytes, 0)
        if self.files > self._max_files:
            raise self._beyond(f"more than {self._max_files:,} files", "LARDER_MAX_FILES")
        if self.bytes > self._max_bytes:
            raise self._beyond(f"more than {amount(self._max_bytes, 'B')}", "LARDER_MAX_UNPACKED")
        return member

    def _beyond(self, what: str, setting: str) -> TooLargeError:
        return TooLargeError(
            f"{self._source} unpacks to {what}", next_step=f"if you trust it, raise {setting} and run again"
        )


def unpack(
    source: Source, folder: Path, ledger: Ledger, engine: Engine, reporter: Reporter, max_files: int, max_bytes: int
) -> None:
    """Write every file of `source` below `folder` and its entry into `ledger`; those that are in it are skipped.

    Raises InputError for a source that is unsafe, damaged, or beyond the limits, StorageError when the disk is too
    small.
    """
    total = source.total
    if source.counted:
        census = Limits(source.name, max_files, max_bytes)
        with reporter.task("list", None, "files") as task:
            for member in source.scan():
                census.count(member)
                task.advance()
        total = census.files
        require_space(folder, census.bytes - sum(entry.bytes for entry in ledger.entries()), f"{source.name}, unpacked")
    limits = Limits(source.name, max_files, max_bytes)
    links: dict[str, str] = {}
    done = len(ledger)
    with reporter.task(source.verb, total, "files", done=done) as task:
        files = _without_links((limits.count(member) for member in source.scan()), links, source)
        todo = _missing(files, ledger, source) if done else files
        store = functools.partial(_store_batch, source, folder)
        if not source.parallel:
            engine = LocalEngine(1)
        with engine(store, _batches(todo, one_by_one=not source.parallel)) as results:
            for entries in results:
                _record(ledger, entries, source)
                task.advance(len(entries))
    _link(source, folder, ledger, links)


def _without_links(members: Iterable[Member], links: dict[str, str], source: Source) -> Iterator[Member]:
    """The members that have bytes; the others are put into `links`."""
    for member in members:
        if member.path in links:
            raise _twice(source, member.path)
        if member.link is None:
            yield member
        else:
            links[member.path] = member.link


def _missing(members: Iterable[Member], ledger: Ledger, source: Source) -> Iterator[Member]:
    """The members that an earlier run has not stored; a path that comes twice is refused, as that run would have."""
    ledger.disclaim()
    for number, member in enumerate(members):
        if ledger.claim(member.path, str(number)) != str(number):
            raise _twice(source, member.path)
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
        raise _clash(source, name) from None


def _clash(source: str, path: str) -> BadSourceError:
    return refuse(source, [f"{path!r} is a file and a folder at once"])


def _write(descriptor: int, chunk: bytes) -> None:
    written = os.write(descriptor, chunk)
    while written < len(chunk):  # a nearly full disk takes a part first
        written += os.write(descriptor, chunk[written:])


def _record(ledger: Ledger, entries: Sequence[IndexEntry], source: Source) -> None:
    if (twice := ledger.add(entries)) is not None:
        raise _twice(source, twice.path)


def _twice(source: Source, path: str) -> BadSourceError:
    holders = source.holders(path) if hasattr(source, "holders") else []
    which = f": from {' and from '.join(map(repr, holders))}" if len(holders) > 1 else ""
    return refuse(source.name, [f"{path!r} is in it twice{which}"])


def _link(source: Source, folder: Path, ledger: Ledger, links: dict[str, str]) -> None:
    """Make every link a second name of the file it stands for, so that no link can point elsewhere later."""
    waiting = {}
    for path, target in links.items():
        if path not in ledger:
            waiting[path] = target
        elif target not in ledger or not os.path.samefile(folder / path, folder / target):
            raise _twice(source, path)  # it is a file of its own, not the link that an earlier run made
    while waiting:
        ready = [path for path, target in waiting.items() if target in ledger]
        if not ready:
            some = itertools.islice(waiting.items(), 20)
            raise refuse(
                source.name, [f"{path!r} is a link to {target!r}, which is no file in it" for path, target in some]
            )
        for path in ready:
            entry = ledger.get(waiting.pop(path))
            assert entry is not None
            try:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).unlink(missing_ok=True)
                os.link(folder / entry.path, folder / path)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise _clash(source.name, path) from None
            _record(ledger, [entry._replace(path=path)], source)
