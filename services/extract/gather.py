"""Sources that are more than one archive or folder: listed, brought to this machine where need be, and opened."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from larder.errors import InputError
from larder.machine import boot_id
from larder.progress import Reporter, Silent, Task, amount
from larder.sources import FolderSource, Limits, Options, absent, open_local
from larder.sources.archives import ArchivesSource
from larder.sources.kinds import Kinds, is_archive, is_hidden, is_parquet, kind_of
from larder.sources.members import BadSourceError, Source, safe_path
from larder.sources.parts import Part
from larder.volume import require_space
from services.extract import remotes
from services.extract.download import Origin, download
from services.extract.remotes import Remote
from services.extract.settings import ExtractSettings, hub_address, is_remote, local_path

if TYPE_CHECKING:
    from larder.sources.cards import Card
    from services.extract.remotes.hub import HubFile

_FETCHED_AT_ONCE = 4
_MAGIC_PARQUET = b"PAR1"


class Opened(NamedTuple):
    """A source, and what is known of it."""

    source: Source
    files: Sequence[Part] = ()
    """The archives or Parquet files that it is made of: their sha256 identifies it."""
    kind: Literal["archive", "archives", "parquet"] = "archive"
    """What these are; a single archive has a sha256 that people can compare."""
    listed: dict[str, str | int] = {}  # noqa: RUF012
    """What a listing says of it, where nothing else identifies it."""
    record: dict[str, Any] = {}  # noqa: RUF012
    """What else belongs into run.json."""
    origin: Origin | None = None
    """Where a single archive was downloaded from."""


def expand(settings: ExtractSettings) -> list[str]:
    """Every source that LARDER_SOURCE names, local patterns as the files that they match."""
    return [path for source in settings.sources for path in _matches(source)]


def shown(source: str) -> str:
    """What people see of a source: without credentials and signatures, which web addresses may hold."""
    return remotes.shown(source) if is_remote(source) else str(local_path(source))


def _matches(source: str) -> list[str]:
    if is_remote(source) or not glob.has_magic(source) or local_path(source).exists():
        return [source]
    return sorted(glob.glob(str(local_path(source)), recursive=True)) or [source]


def open_several(sources: Sequence[str], settings: ExtractSettings, scratch: Path, reporter: Reporter) -> Opened:
    """Several archives, or several Parquet files. Remote ones are downloaded."""
    parts = []
    for source in sources:
        if source.startswith("s3:") and (below := _below_prefix(source, settings, scratch, reporter)) is not None:
            parts += below
        elif is_remote(source):
            parts.append(_fetch_one(source, settings, scratch, reporter))
        else:
            parts.append(_local_part(local_path(source)))
    name = f"{shown(sources[0])} and {len(sources) - 1} more"
    return _open_parts(name, parts, settings, reporter)


def _below_prefix(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> list[Part] | None:
    """The archives or Parquet files below one of several prefixes, downloaded; None when it is an object."""
    from larder.sources.prefix import is_prefix
    from services.extract.remotes.prefix import Prefix

    if not is_prefix(source, settings):
        return None
    prefix = Prefix(source, settings, settings.max_files)
    found = [item for item in prefix.list() if is_archive(item.path) or is_parquet(item.path)]
    if not found:
        raise InputError(f"{source} holds no archives or Parquet files", next_step="check LARDER_SOURCE")
    folder = _fetch_all(source, found, prefix.fetch, scratch, source, reporter)
    return [Part(folder / item.path, item.path) for item in found]


def _local_part(path: Path) -> Part:
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, and several sources must be archives or Parquet files",
            next_step="give a folder alone as LARDER_SOURCE, or name the archives in it",
        )
    if not path.is_file():
        raise absent(str(path))
    return Part(path, path.name)


def _fetch_one(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> Part:
    remote = open_remote(source, settings)
    path = download(remote, scratch / _key(source), reporter, settings.max_download)
    return Part(path, _file_name(source))


def open_remote(source: str, settings: ExtractSettings) -> Remote:
    """A file on a server. Only its protocol's client is imported: a tenth of a second for each."""
    if source.startswith("s3:"):
        from services.extract.remotes.s3 import S3Remote

        return S3Remote(source, settings)
    from services.extract.remotes.http import HttpRemote

    return HttpRemote(source, settings.stall_seconds)


def open_prefix(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> Opened:
    """The objects below a prefix: files are read where they are, archives and Parquet files are downloaded."""
    from larder.sources.prefix import Object
    from services.extract.remotes.prefix import Listing, Prefix, PrefixSource

    prefix, kinds = Prefix(source, settings, settings.max_files), Kinds()
    folder = scratch / _key(source)

    def counted(objects: Iterable[Object], task: Task) -> Iterator[Object]:
        for found in objects:
            kinds.add(found.path)
            task.advance()
            yield found

    listing = Listing(folder / "listing.jsonl")
    with reporter.task("list", None, "objects") as task:
        listing.write(counted(prefix.list(), task))
    if not listing.files:
        raise InputError(f"{source} holds no objects", next_step="check LARDER_SOURCE: bucket and prefix")
    reporter.event("listed", f"{source} holds {amount(listing.files, 'objects')}, {amount(listing.bytes, 'B')}")
    if kinds.kind == "files":
        summary: dict[str, str | int] = {
            "kind": "objects",
            "files": listing.files,
            "bytes": listing.bytes,
            "listing": listing.sha256,
        }
        return Opened(PrefixSource(prefix, listing), listed=summary)
    whole = kinds.kind == "archives"
    wanted = [
        found for found in listing
        if not is_hidden(found.path) and (whole or is_parquet(found.path) or found.path == "README.md")
    ]  # fmt: skip
    return open_folder(_fetch_all(source, wanted, prefix.fetch, scratch, source, reporter), source, settings, reporter)


def open_hub(settings: ExtractSettings, scratch: Path, reporter: Reporter) -> Opened:
    """A data set of the Hugging Face Hub, at the commit that its revision has now; run.json notes that."""
    from services.extract.remotes.hub import Hub

    hub = Hub(
        hub_address(settings.source),
        settings.hf_endpoint,
        settings.hf_token.get_secret_value(),
        settings.max_files,
        settings.max_download,
        settings.stall_seconds,
    )
    reporter.event("revision", f"{hub.name} is at the commit {hub.commit}", commit=hub.commit)
    files = hub.files()
    paths = {file.path: file for file in files}
    kinds = Kinds()
    for path in paths:
        kinds.add(path)
    if not (kinds.images or kinds.tables or kinds.archives):
        raise BadSourceError(
            f"{hub.name} holds no Parquet files, images or archives at the commit {hub.commit[:12]}",
            next_step=f"try {hub.name}@refs/convert/parquet, where the hub keeps Parquet files of many data sets",
        )
    scratch = scratch / _key(f"{settings.source} {hub.commit}")

    def fetch_all(some: Sequence[HubFile]) -> Path:
        return _fetch_all("hub", some, hub.fetch, scratch, hub.name, reporter)

    if kinds.kind == "parquet":
        from larder.sources.cards import choose

        card = [file] if (file := hub.card()) is not None else []
        folder = fetch_all(card)
        chosen = choose(filter(is_parquet, paths), _card(folder), hub.name)
        fetch_all([paths[path] for path in chosen.splits])
    else:
        folder = fetch_all(files)
    opened = open_folder(folder, hub.name, settings, reporter)
    return opened._replace(record={"commit": hub.commit})


def open_folder(folder: Path, name: str, settings: ExtractSettings, reporter: Reporter) -> Opened:
    """A folder on this machine: files as they are, archives with what lies beside them, or Parquet files."""
    source = FolderSource(folder, name, options_of(settings))
    found: list[str] = []

    def noted() -> Iterator[str]:
        for member in source.scan():
            if (is_archive(member.path) or is_parquet(member.path)) and not is_hidden(member.path):
                found.append(member.path)
            yield member.path

    kind = kind_of(noted())
    if kind == "files":
        return Opened(source)
    parts = [Part(folder / path, path) for path in sorted(found) if is_parquet(path) == (kind == "parquet")]
    if kind == "parquet":
        return _open_parquet(name, parts, _card(folder), settings, reporter)
    return Opened(
        ArchivesSource(name, parts, settings.archive_folders, options_of(settings), folder), parts, "archives"
    )


def options_of(settings: ExtractSettings, inner: Path | None = None) -> Options:
    """How archives and folders are read. Archives in an archive are unpacked where there is a folder for copies."""
    limits = Limits(settings.max_files, settings.max_unpacked)
    unpack_inner = settings.inner_archives and inner is not None
    return Options(limits, settings.zip_encoding, unpack_inner, settings.follow_links, inner)


def open_file(path: Path, name: str, settings: ExtractSettings, reporter: Reporter, inner: Path) -> Opened:
    """One file: an archive of images, or a Parquet file, told by its content."""
    part = Part(path, _file_name(name))
    if path.is_file() and _is_parquet(part):
        from larder.sources.cards import Card

        return _open_parquet(name, [part], Card(), settings, reporter)
    return Opened(open_local(path, name, options_of(settings, inner)), [part])


def _open_parts(name: str, parts: Sequence[Part], settings: ExtractSettings, reporter: Reporter) -> Opened:
    tables = [part for part in parts if _is_parquet(part)]
    if tables and len(tables) < len(parts):
        other = next(part for part in parts if part not in tables)
        raise InputError(
            f"{tables[0].name} is a Parquet file, and {other.name} is none", next_step="name files of one kind"
        )
    if tables:
        from larder.sources.cards import Card

        return _open_parquet(name, parts, Card(), settings, reporter)
    return Opened(ArchivesSource(name, parts, settings.archive_folders, options_of(settings)), parts, "archives")


def _open_parquet(
    name: str, parts: Sequence[Part], card: Card, settings: ExtractSettings, reporter: Reporter
) -> Opened:  # fmt: skip
    from larder.sources.parquet import open_parquet  # half a second, for those who need it

    return Opened(open_parquet(name, parts, card, settings, reporter), parts, "parquet")


def _file_name(source: str) -> str:
    """The name of the file that a source is."""
    if source.startswith(("http://", "https://")):
        source = unquote(urlsplit(source).path)
    return source.rstrip("/").rpartition("/")[2] or "file"


def _is_parquet(part: Part) -> bool:
    with part.path.open("rb") as file:
        return file.read(len(_MAGIC_PARQUET)) == _MAGIC_PARQUET


def _card(folder: Path) -> Card:
    from larder.sources.cards import MOST_CARD_BYTES, Card, read_card

    path = folder / "README.md"
    if not path.is_file():
        return Card()
    with path.open("rb") as file:
        return read_card(file.read(MOST_CARD_BYTES))


def _fetch_all(
    key: str, files: Sequence[Any], fetch: Callable[[Any, Path, Reporter], Path], scratch: Path, name: str,
    reporter: Reporter,
) -> Path:  # fmt: skip
    """Bring files to this machine, several at once, and return their folder. A file is there when it is complete and
    checked; those of an earlier run since the machine's last start stay.
    """
    scratch = scratch / _key(f"{key} {boot_id()}")
    folder, incoming = scratch / "files", scratch / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    waiting = [file for file in files if _length(folder / file.path) != file.bytes]
    total, left = sum(file.bytes for file in files), sum(file.bytes for file in waiting)
    require_space(scratch, total + left, f"{name} with its unpacked files")
    with reporter.task("download", total, "B", done=total - left) as task:

        def bring(file: Any) -> None:
            path = fetch(file, incoming, _Within(reporter, task))
            place = folder / safe_path(file.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)

        with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
            jobs = [pool.submit(bring, file) for file in waiting]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return folder


def _length(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


class _Within(Silent):
    """Reports work that is a part of a larger task: its bytes count there, its events are passed on."""

    def __init__(self, reporter: Reporter, task: Task) -> None:
        super().__init__()
        self._reporter, self._task = reporter, task

    def event(self, name: str, message: str, **fields: Any) -> None:
        """See Reporter."""
        self._reporter.event(name, message, **fields)

    @contextmanager
    def task(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Task]:
        """See Reporter."""
        self._task.advance(done)
        yield self._task


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
