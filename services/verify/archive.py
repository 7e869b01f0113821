"""Verify the link "archive": check that raw's files match the source's members."""

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
from larder.sources import GeneratedSource, SourceLimits, SourceOptions, open_local
from larder.sources.members import Member, Source
from services.verify import sources
from services.verify.chain import RAW_FILES, TREE_FILES, Chain
from services.verify.files import choose_raw_files
from services.verify.findings import BreakError, ChainBreak, UnfollowedError, VerifiedLink, changed_content_error
from services.verify.sorted_index import SeenEntries
from services.verify.sources import StoredObjectsSource
from services.verify.verified_artifact import VerifiedArtifact

_MEMBERS_PER_BATCH, _CONCURRENT_REQUESTS = 64, 16
_NO_LIMITS = SourceLimits(1 << 62, 1 << 62)
_OTHER = "LARDER_SOURCE names another source than the one that raw was extracted from"


def check_archive(chain: Chain) -> VerifiedLink:
    """Check the archive's sha256 against raw's manifest, and its members against raw's files.

    All members are compared by name, the chosen ones by sha256, too. Folders and objects in a store are compared the
    same way. Images of the generated dataset are generated again.
    """
    raw = chain.find_artifact(RAW_FILES)
    if raw is None:
        raise UnfollowedError("no raw/ that could be compared with it")
    source = _open_source(chain, raw)
    read = _require_archive(chain, raw) if raw.manifest.input.get("kind") == "archive" else 0
    choice = choose_raw_files(chain, raw, chain.find_artifact(TREE_FILES))
    # A compressed tar allows only sequential reading.
    workers, batch = (chain.settings.workers, _MEMBERS_PER_BATCH) if source.parallel else (1, 1)
    threads = _CONCURRENT_REQUESTS if isinstance(source, StoredObjectsSource) else 1
    spread = Spread(LocalEngine(workers, chain.settings.workers_after), batch, threads)
    checked = 0
    with chain.reporter.task(f"members of {source.name}", raw.manifest.files, "files") as task:
        jobs = (job for job in _jobs(raw, source, task.advance) if job.entry.path in choice)
        for size in spread(functools.partial(_check, source, raw.location.name), jobs):
            checked, read = checked + 1, read + size
    return VerifiedLink(checked, raw.manifest.files, "files", read)


class MemberJob(NamedTuple):
    """A member with its entry in raw's index."""

    member: Member
    entry: IndexEntry


def _open_source(chain: Chain, raw: VerifiedArtifact) -> Source | StoredObjectsSource:
    """Open the source of raw. Raises UnfollowedError if it isn't available."""
    made_from, named = raw.manifest.input, chain.settings.source_path
    kind = made_from.get("kind")
    if kind == "sample":
        if made_from.get("generator") != sample.GENERATOR_VERSION:
            raise UnfollowedError("the generated dataset was made by another release of the generator")
        return _make_generator(raw)
    # No limits: the digest proves that extract has read this archive within its limits.
    options = SourceOptions(_NO_LIMITS, str(made_from.get("zip_encoding", "")), inner="inner_archives" in made_from)
    if kind == "objects":
        return sources.open_objects(chain)
    if kind in ("archives", "parquet"):
        return sources.open_archives(chain, raw, cast(sources.PartsKind, kind), options)
    if kind not in ("archive", "folder"):
        raise UnfollowedError(f"raw was made of {str(kind)[:80]!a}, which this stage doesn't support")
    if named is None:
        raise UnfollowedError(f"the {kind} isn't kept; LARDER_SOURCE=<its path on this machine> follows it")
    if named.is_dir() != (kind == "folder"):
        raise BreakError(ChainBreak(f"raw was extracted from another source: {kind}", str(named), cause=_OTHER))
    return open_local(named, str(named), options)


def _make_generator(raw: VerifiedArtifact) -> Source:
    """Return the sample's generator, if raw's manifest is valid for it."""
    images, seed = (raw.manifest.input.get(name) for name in ("images", "seed"))
    is_valid = images == raw.manifest.files >= sample.CLASSES * len(sample.SPLITS)
    if is_valid and isinstance(images, int) and isinstance(seed, int) and seed >= 0:
        return GeneratedSource(images, seed)
    raise BreakError(
        ChainBreak(
            "the generator can't make the sample of raw's manifest",
            f"{raw.location.name}/{MANIFEST}, input",
            found=f"images {images}, seed {seed}",
            cause="somebody edited it",
        )
    )


def _require_archive(chain: Chain, raw: VerifiedArtifact) -> int:
    """Hash the archive and return its length. Raises BreakError for another sha256."""
    path = chain.settings.source_path or Path()
    with chain.reporter.task(f"hashing {path}", path.stat().st_size, "B") as task, path.open("rb", buffering=0) as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            task.advance(len(chunk))
    if digest.hexdigest() != (expected := str(raw.manifest.input.get("sha256"))):
        cause = f"{_OTHER}; or one of them was edited"
        raise changed_content_error(
            "the archive isn't the one that raw's manifest names", str(path), expected, digest.hexdigest(), cause
        )
    return path.stat().st_size


def _jobs(
    raw: VerifiedArtifact, source: Source | StoredObjectsSource, advance: Callable[[], None]
) -> Iterator[MemberJob]:
    """Yield each member that is not a link, with its entry in raw's index.

    Raises BreakError for a member that raw lacks, and finally for a file of raw that is no member.
    """
    seen, prefix = SeenEntries(raw.index), None
    for member in source.scan():
        advance()
        if prefix is None:
            prefix = _prefix(raw, member.path)
        path = member.path.removeprefix(prefix)
        location = raw.index.find_offset(path)
        if location is None:
            raise BreakError(ChainBreak("raw's index lacks a member of the source", _index_path(raw), f"{member.path}"))
        seen.add(location)
        entry = raw.index.entry_at(location)
        if member.link is None:
            yield MemberJob(member, entry)
        else:
            _require_link(raw, entry, member.link.removeprefix(prefix))
    if (missing := seen.first_missing()) is not None:
        raise BreakError(ChainBreak("raw's index names a file that the source lacks", _index_path(raw), missing.path))


def _require_link(raw: VerifiedArtifact, entry: IndexEntry, target: str) -> None:
    """Raise BreakError unless a link's file has the content of its target."""
    target_entry = raw.index.find(target)
    if target_entry is None or target_entry.sha256 != entry.sha256:
        raise BreakError(
            ChainBreak(f"raw's index has other bytes than the link's target {target!r}", _index_path(raw), entry.path)
        )


def _prefix(raw: VerifiedArtifact, path: str) -> str:
    """Return the wrapping folders that extract removed, found by the first member's path."""
    parts = path.split("/")
    prefixes = ("".join(f"{part}/" for part in parts[:count]) for count in range(len(parts)))
    return next((prefix for prefix in prefixes if raw.index.find(path.removeprefix(prefix)) is not None), "")


def _check(source: Source | StoredObjectsSource, raw: str, job: MemberJob) -> int:
    """Read a member and return its length. Raises BreakError if raw's file has other content."""
    where = f"{source.name}: {job.member.path}"
    current = source.digest(job.member) if isinstance(source, StoredObjectsSource) else _digest(source, job.member)
    if current is None:
        raise BreakError(
            ChainBreak("an object of the source is missing", where, job.entry.path, cause="it was deleted")
        )
    length, digest = current
    if digest != job.entry.sha256:
        raise changed_content_error(
            "raw's index has another sha256 than the source's member",
            where,
            digest,
            job.entry.sha256,
            "raw's index was edited, or the source has changed",
            job.entry.path,
        )
    return length


def _digest(source: Source, member: Member) -> tuple[int, str]:
    digest, length = hashlib.sha256(), 0
    for chunk in source.read(member):
        digest.update(chunk)
        length += len(chunk)
    return length, digest.hexdigest()


def _index_path(raw: VerifiedArtifact) -> str:
    return f"{raw.location.name}/{META}/{index_name(raw.manifest)}"
