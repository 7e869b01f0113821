"""The link archive: raw's files are what the source's members hold."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from larder import sample
from larder.contract import MANIFEST, META, IndexEntry, index_name
from larder.engines.local import LocalEngine
from larder.engines.spread import Spread
from larder.sources import GeneratedSource, Limits, Options, open_local
from larder.sources.members import Member, Source
from services.verify import sources
from services.verify.chain import RAW_FILES, TREE_FILES, Chain
from services.verify.files import chosen_of_raw
from services.verify.findings import BreakError, Checked, Fault, UnfollowedError, changed
from services.verify.index import Marks
from services.verify.paper import Paper
from services.verify.sources import BucketSource

_AT_ONCE, _REQUESTS_AT_ONCE = 64, 16
_NO_LIMITS = Limits(1 << 62, 1 << 62)
_OTHER = "LARDER_SOURCE names another source than the one that raw was extracted from"


def archive(chain: Chain) -> Checked:
    """The archive has the sha256 that raw's manifest names; its members are raw's files, by name and, those that are
    chosen, by sha256. A folder and a store's objects are compared alike, and the sample's pictures are generated again.
    """
    raw = chain.known(RAW_FILES)
    if raw is None:
        raise UnfollowedError("no raw/ that could be compared with it")
    source = _source(chain, raw)
    read = _require_archive(chain, raw) if raw.manifest.input.get("kind") == "archive" else 0
    choice = chosen_of_raw(chain, raw, chain.known(TREE_FILES))
    # A compressed tar is read front to back, each member while it is the one at hand.
    workers, batch = (chain.settings.workers, _AT_ONCE) if source.parallel else (1, 1)
    threads = _REQUESTS_AT_ONCE if isinstance(source, BucketSource) else 1
    spread = Spread(LocalEngine(workers, chain.settings.workers_after), batch, threads)
    looked_at = 0
    with chain.reporter.task(f"members of {source.name}", raw.manifest.files, "files") as task:
        jobs = (job for job in _jobs(raw, source, task.advance) if job.entry.path in choice)
        for size in spread(functools.partial(_check, source, raw.place.name), jobs):
            looked_at, read = looked_at + 1, read + size
    return Checked(looked_at, raw.manifest.files, "files", read)


class Job(NamedTuple):
    """A member, and what raw's index says of it."""

    member: Member
    entry: IndexEntry


def _source(chain: Chain, raw: Paper) -> Source | BucketSource:
    """What raw was extracted from, as far as it can be had."""
    made_from, named = raw.manifest.input, chain.settings.source_path
    kind = made_from.get("kind")
    if kind == "sample":
        if made_from.get("generator") != sample.GENERATOR_VERSION:
            raise UnfollowedError("the sample was made by another release of its generator")
        return _sample_of(raw)
    # Any size: the archive is the one that extract has read within its limits, which its digest shows.
    options = Options(_NO_LIMITS, str(made_from.get("zip_encoding", "")), inner="inner_archives" in made_from)
    if kind == "objects":
        return sources.objects(chain)
    if kind in ("archives", "parquet"):
        return sources.several(chain, raw, cast(sources.Kind, kind), options)
    if kind not in ("archive", "folder"):
        raise UnfollowedError(f"raw was made of {str(kind)[:80]!a}, which this stage doesn't know")
    if named is None:
        raise UnfollowedError(f"the {kind} isn't kept; LARDER_SOURCE=<its path on this machine> follows it")
    if named.is_dir() != (kind == "folder"):
        raise BreakError(Fault(f"raw was extracted from another source: {kind}", str(named), cause=_OTHER))
    return open_local(named, str(named), options)


def _sample_of(raw: Paper) -> Source:
    """The generator of the sample, which has as many files as images."""
    images, seed = (raw.manifest.input.get(name) for name in ("images", "seed"))
    right = images == raw.manifest.files >= sample.CLASSES * len(sample.SPLITS)
    if right and isinstance(images, int) and isinstance(seed, int) and seed >= 0:
        return GeneratedSource(images, seed)
    raise BreakError(
        Fault("raw's manifest is of no sample that the generator makes", f"{raw.place.name}/{MANIFEST}, input",
              found=f"images {images}, seed {seed}", cause="somebody edited it")
    )  # fmt: skip


def _require_archive(chain: Chain, raw: Paper) -> int:
    """Hash the archive, and return its length."""
    path = chain.settings.source_path or Path()
    with chain.reporter.task(f"hashing {path}", path.stat().st_size, "B") as task, path.open("rb", buffering=0) as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            task.advance(len(chunk))
    if digest.hexdigest() != (expected := str(raw.manifest.input.get("sha256"))):
        cause = f"{_OTHER}; or one of them was edited"
        raise changed(
            "the archive isn't the one that raw's manifest names", str(path), expected, digest.hexdigest(), cause
        )
    return path.stat().st_size


def _jobs(raw: Paper, source: Source | BucketSource, advance: Callable[[], None]) -> Iterator[Job]:
    """Each member that is no link, with its file.

    Raises BreakError for a member without a file, and at last for a file without a member.
    """
    met, prefix = Marks(raw.index), None
    for member in source.scan():
        advance()
        if prefix is None:
            prefix = _prefix(raw, member.path)
        path = member.path.removeprefix(prefix)
        place = raw.index.place(path)
        if place is None:
            raise BreakError(Fault("raw's index lacks a member of the source", _index_of(raw), f"{member.path}"))
        met.add(place)
        entry = raw.index.at(place)
        if member.link is None:
            yield Job(member, entry)
        else:
            _require_link(raw, entry, member.link.removeprefix(prefix))
    if (missing := met.first_missing()) is not None:
        raise BreakError(Fault("raw's index names a file that the source hasn't", _index_of(raw), missing.path))


def _require_link(raw: Paper, entry: IndexEntry, target: str) -> None:
    """Raise BreakError unless a link became a second name of what it points to."""
    pointed_to = raw.index.find(target)
    if pointed_to is None or pointed_to.sha256 != entry.sha256:
        raise BreakError(
            Fault(f"raw's index has other bytes than the link's target {target!r}", _index_of(raw), entry.path)
        )


def _prefix(raw: Paper, path: str) -> str:
    """The folders around the data set in the source, which extract took away; told by the first member's path."""
    parts = path.split("/")
    prefixes = ("".join(f"{part}/" for part in parts[:count]) for count in range(len(parts)))
    return next((prefix for prefix in prefixes if raw.index.find(path.removeprefix(prefix)) is not None), "")


def _check(source: Source | BucketSource, raw: str, job: Job) -> int:
    """Read a member and return its length. Raises BreakError when raw's file isn't made of its bytes."""
    where = f"{source.name}: {job.member.path}"
    found = source.digest(job.member) if isinstance(source, BucketSource) else _digest(source, job.member)
    if found is None:
        raise BreakError(Fault("an object of the source is gone", where, job.entry.path, cause="it was deleted"))
    length, digest = found
    if digest != job.entry.sha256:
        raise changed(
            "raw's index has another sha256 than the source's member", where, digest, job.entry.sha256,
            "raw's index was edited, or the source has changed", job.entry.path,
        )  # fmt: skip
    return length


def _digest(source: Source, member: Member) -> tuple[int, str]:
    digest, length = hashlib.sha256(), 0
    for chunk in source.read(member):
        digest.update(chunk)
        length += len(chunk)
    return length, digest.hexdigest()


def _index_of(raw: Paper) -> str:
    return f"{raw.place.name}/{META}/{index_name(raw.manifest)}"
