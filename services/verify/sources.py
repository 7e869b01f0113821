"""What raw was extracted from, as far as it can be had again: several archives or Parquet files, objects of a store."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from larder.errors import ConfigurationError, LarderError
from larder.packing.source import open_folder
from larder.progress import amount
from larder.source_names import split_sources
from larder.sources import FolderSource, Options
from larder.sources.archive_folders import ArchiveFolders
from larder.sources.archives import ArchivesSource, parts_of, sha256_of_parts
from larder.sources.members import Member, UnsafeNameError, is_litter, safe_path
from larder.sources.parts import Part
from larder.store import BucketSettings, place_in_store
from services.verify.chain import Chain
from services.verify.findings import UnfollowedError, changed
from services.verify.paper import Paper

_SHOWN = 5
_RULES: tuple[ArchiveFolders, ...] = ("set", "archive", "none")
Kind = Literal["archives", "parquet"]


class BucketSource(NamedTuple):
    """Objects below a prefix, where they are."""

    settings: BucketSettings
    folder: str

    @property
    def name(self) -> str:
        """For people."""
        return open_folder(*self).uri

    @property
    def parallel(self) -> bool:
        """See Source."""
        return True

    def scan(self) -> Iterator[Member]:
        """The objects that extract takes: no markers of folders, no litter. See Source."""
        for item in open_folder(*self).list():
            marker = item.path.endswith("/") or (item.bytes == 0 and item.path.endswith("_$folder$"))
            if item.path and not marker and not is_litter(item.path):
                try:
                    yield Member(safe_path(item.path), item.bytes, item.path)
                except UnsafeNameError as fault:
                    raise UnfollowedError(f"{self.name} holds {item.path[:200]!a}, which {fault}") from None

    def digest(self, member: Member) -> tuple[int, str] | None:
        """Length and sha256 of an object, which is read; None when it is gone."""
        return open_folder(*self).digest(member.place, member.bytes)


def objects(chain: Chain) -> BucketSource:
    """The prefix that LARDER_SOURCE names. Raises UnfollowedError where it names none."""
    source = chain.settings.source
    if not source.startswith("s3://") or "\n" in source or source.startswith("["):
        raise UnfollowedError("raw was made of a store's objects; LARDER_SOURCE=s3://<bucket>/<prefix> follows them")
    if "*" in source:
        raise UnfollowedError(f"{source} is a pattern, which this stage doesn't follow: name the folder of all of them")
    try:
        settings, name = place_in_store(chain.settings, source.rstrip("/"))
    except ValueError:
        name = ""
    if not name:
        raise UnfollowedError(f"{source} names no folder in a bucket: a whole bucket isn't followed")
    try:
        if next(open_folder(settings, name).list(), None) is None:
            raise UnfollowedError(f"{source} holds no objects; they aren't kept elsewhere")
    except ConfigurationError as error:
        raise UnfollowedError(f"{source} can't be read: {error.what}") from None
    return BucketSource(settings, name)


def several(chain: Chain, raw: Paper, kind: Kind, options: Options) -> ArchivesSource:
    """The archives that raw was made of, each of which is there, and all of them are those of its manifest.

    Raises UnfollowedError with each one that isn't on this machine, and for Parquet files, of which no more is looked
    at; BreakError when they are others.
    """
    files = raw.manifest.input.get("files", 0)
    what = amount(files if isinstance(files, int) else 0, "archives" if kind == "archives" else "Parquet files")
    folder, parts = _parts(chain.settings.source, kind, what, options)
    _require_parts(chain, raw, parts)
    if kind == "parquet":
        raise UnfollowedError(
            f"the {what} are those of raw's manifest, by their sha256; that raw holds their rows isn't followed: this "
            "stage has no reader for them"
        )
    given = raw.manifest.settings.get("archive_folders", "set")
    rule: ArchiveFolders = next((rule for rule in _RULES if rule == given), "set")
    name = str(folder) if folder else f"{parts[0].name} and {len(parts) - 1} more"
    return ArchivesSource(name, parts, rule, options, folder)


def _parts(source: str, kind: Kind, what: str, options: Options) -> tuple[Path | None, list[Part]]:
    """The files, and the folder that holds them if that was the source."""
    if not source:
        raise UnfollowedError(f"the {what} aren't kept; LARDER_SOURCE=<their folder, or a list of paths> follows them")
    try:
        names = [found for one in split_sources(source) for found in _matches(one)]
    except ValueError as fault:
        raise UnfollowedError(f"LARDER_SOURCE {fault}") from None
    if len(names) == 1 and os.path.isdir(os.path.expanduser(names[0])):
        folder = Path(os.path.expanduser(names[0]))
        try:
            return folder, parts_of(FolderSource(folder, names[0], options), kind)
        except LarderError as error:
            raise UnfollowedError(f"{folder} can't be read: {error.what}") from None
    if absent := [why for name in names if (why := _absent(name))]:
        more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
        raise UnfollowedError(
            f"{'; '.join(absent[:_SHOWN])}{more}; name copies on this machine in LARDER_SOURCE, under the same names"
        )
    paths = (Path(os.path.expanduser(name)) for name in names)
    return None, [Part(path, path.name) for path in paths]


def _matches(source: str) -> list[str]:
    path = os.path.expanduser(source)
    if "://" in source or os.path.exists(path) or not glob.has_magic(path):
        return [source]
    return sorted(glob.glob(path, recursive=True)) or [source]


def _absent(name: str) -> str:
    """Why a source can't be read again; "" when it can."""
    if "://" in name:
        plain = re.sub(r"//[^/@]*@", "//", name.partition("?")[0])  # they may hold a password, or a signature
        return f"{plain} was downloaded, and isn't kept"
    return "" if os.path.isfile(os.path.expanduser(name)) else f"{name} isn't there"


def _require_parts(chain: Chain, raw: Paper, parts: Sequence[Part]) -> None:
    """Hash all files. Raises BreakError unless they are those of raw's manifest."""
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
        shown = ", ".join(part.name for part in parts[:_SHOWN])
        raise changed(
            "these files aren't the ones that raw's manifest names", f"{shown}{', …' if len(parts) > _SHOWN else ''}",
            expected, found, "LARDER_SOURCE names other files than those that raw was extracted from, or under other "
            "names; or one of them was edited",
        )  # fmt: skip
