"""Sources of raw that can be read again: several archives or Parquet files, and objects in a store."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from larder.errors import ConfigurationError, LarderError
from larder.packing.pack_input import open_prefix
from larder.progress import format_amount
from larder.source_names import split_sources
from larder.sources import FolderSource, SourceOptions
from larder.sources.archive_folders import ArchiveFolders
from larder.sources.members import Member, UnsafeNameError, is_litter, safe_path
from larder.sources.multi_archive import MultiArchiveSource, list_parts, sha256_of_parts
from larder.sources.parts import SourcePart
from larder.store import parse_store_uri
from services.verify.chain import Chain
from services.verify.findings import UnfollowedError, changed_content_error
from services.verify.locations import StoreLocation
from services.verify.verified_artifact import VerifiedArtifact

_MAX_SHOWN = 5
_RULES: tuple[ArchiveFolders, ...] = ("set", "archive", "none")
PartsKind = Literal["archives", "parquet"]


class StoredObjectsSource(NamedTuple):
    """Objects below a prefix, read in place."""

    location: StoreLocation

    @property
    def name(self) -> str:
        """The URI, for messages."""
        return self.location.name

    @property
    def parallel(self) -> bool:
        """See Source."""
        return True

    def scan(self) -> Iterator[Member]:
        """See Source. Yields the objects that extract takes, without folder markers and junk such as .DS_Store."""
        for item in open_prefix(*self.location).list():
            marker = item.path.endswith("/") or (item.bytes == 0 and item.path.endswith("_$folder$"))
            if item.path and not marker and not is_litter(item.path):
                try:
                    yield Member(safe_path(item.path), item.bytes, item.path)
                except UnsafeNameError as fault:
                    raise UnfollowedError(f"{self.name} holds {item.path[:200]!a}, which {fault}") from None

    def digest(self, member: Member) -> tuple[int, str] | None:
        """Read an object and return its length and sha256, or None if it is gone."""
        return self.location.digest(member.location, member.bytes)


def open_objects(chain: Chain) -> StoredObjectsSource:
    """Return the prefix that LARDER_SOURCE names. Raises UnfollowedError if it isn't one that can be read."""
    source = chain.settings.source
    if not source.startswith("s3://") or "\n" in source or source.startswith("["):
        raise UnfollowedError("raw was made of a store's objects; LARDER_SOURCE=s3://<bucket>/<prefix> follows them")
    if "*" in source:
        raise UnfollowedError(f"{source} is a pattern, which this stage doesn't follow: name the folder of all of them")
    try:
        settings, name = parse_store_uri(chain.settings, source.rstrip("/"))
    except ValueError:
        name = ""
    if not name:
        raise UnfollowedError(f"{source} names no folder in a bucket: a whole bucket isn't followed")
    try:
        if next(open_prefix(settings, name).list(), None) is None:
            raise UnfollowedError(f"{source} holds no objects; they aren't kept elsewhere")
    except ConfigurationError as error:
        raise UnfollowedError(f"{source} can't be read: {error.what}") from None
    return StoredObjectsSource(StoreLocation(settings, name))


def open_archives(chain: Chain, raw: VerifiedArtifact, kind: PartsKind, options: SourceOptions) -> MultiArchiveSource:
    """Return the archives that raw was extracted from, after checking their sha256.

    Raises UnfollowedError if any is not on this machine, and always for Parquet files, whose rows aren't checked
    further. Raises BreakError if the files differ from raw's manifest.
    """
    files = raw.manifest.input.get("files", 0)
    what = format_amount(files if isinstance(files, int) else 0, "archives" if kind == "archives" else "Parquet files")
    folder, parts = _parts(chain.settings.source, kind, what, options)
    _require_parts(chain, raw, parts)
    if kind == "parquet":
        raise UnfollowedError(
            f"the {what} match raw's manifest by sha256; their rows aren't compared with raw, since this stage "
            "doesn't read them"
        )
    given = raw.manifest.settings.get("archive_folders", "set")
    rule: ArchiveFolders = next((rule for rule in _RULES if rule == given), "set")
    name = str(folder) if folder else f"{parts[0].name} and {len(parts) - 1} more"
    return MultiArchiveSource(name, parts, rule, options, folder)


def _parts(source: str, kind: PartsKind, what: str, options: SourceOptions) -> tuple[Path | None, list[SourcePart]]:
    """Return the files, and their folder if the source is one."""
    if not source:
        raise UnfollowedError(f"the {what} aren't kept; LARDER_SOURCE=<their folder, or a list of paths> follows them")
    try:
        names = [name for pattern in split_sources(source) for name in _expand_pattern(pattern)]
    except ValueError as fault:
        raise UnfollowedError(f"LARDER_SOURCE {fault}") from None
    if len(names) == 1 and os.path.isdir(os.path.expanduser(names[0])):
        folder = Path(os.path.expanduser(names[0]))
        try:
            return folder, list_parts(FolderSource(folder, names[0], options), kind)
        except LarderError as error:
            raise UnfollowedError(f"{folder} can't be read: {error.what}") from None
    if absent := [why for name in names if (why := _why_absent(name))]:
        more = f" and {len(absent) - _MAX_SHOWN:,} more" if len(absent) > _MAX_SHOWN else ""
        raise UnfollowedError(
            f"{'; '.join(absent[:_MAX_SHOWN])}{more}; name copies on this machine in LARDER_SOURCE, "
            "under the same names"
        )
    paths = (Path(os.path.expanduser(name)) for name in names)
    return None, [SourcePart(path, path.name) for path in paths]


def _expand_pattern(source: str) -> list[str]:
    path = os.path.expanduser(source)
    if "://" in source or os.path.exists(path) or not glob.has_magic(path):
        return [source]
    return sorted(glob.glob(path, recursive=True)) or [source]


def _why_absent(name: str) -> str:
    """Return why a source can't be read again, or "" if it can."""
    if "://" in name:
        plain = re.sub(r"//[^/@]*@", "//", name.partition("?")[0])  # URLs may hold a password or a signature
        return f"{plain} was downloaded, and isn't kept"
    return "" if os.path.isfile(os.path.expanduser(name)) else f"{name} doesn't exist"


def _require_parts(chain: Chain, raw: VerifiedArtifact, parts: Sequence[SourcePart]) -> None:
    """Hash all files. Raises BreakError if they differ from raw's manifest."""
    expected, total = str(raw.manifest.input.get("sha256")), sum(part.path.stat().st_size for part in parts)
    digests = []
    with chain.reporter.task("hashing", total, "B") as task:
        for part in parts:
            with part.path.open("rb", buffering=0) as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
                    task.advance(len(chunk))
            digests.append(digest.hexdigest())
    if (found := sha256_of_parts(digests, parts)) != expected:
        shown = ", ".join(part.name for part in parts[:_MAX_SHOWN])
        raise changed_content_error(
            "these files aren't the ones that raw's manifest names",
            f"{shown}{', …' if len(parts) > _MAX_SHOWN else ''}",
            expected,
            found,
            "LARDER_SOURCE names other files than those that raw was extracted from, or under other "
            "names; or one of them was edited",
        )
