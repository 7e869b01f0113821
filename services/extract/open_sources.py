"""List, download and open sources of every kind: files, folders, prefixes, datasets of the Hub, and several at once."""

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
from larder.progress import NullReporter, Reporter, Task, format_amount
from larder.sources import FolderSource, SourceLimits, SourceOptions, missing_source_error, open_local
from larder.sources.kinds import KindDetector, detect_kind, is_archive, is_hidden, is_parquet
from larder.sources.members import BadSourceError, Source, safe_path
from larder.sources.multi_archive import MultiArchiveSource
from larder.sources.parts import SourcePart
from larder.volume import require_space
from services.extract import remotes
from services.extract.download import Origin, download
from services.extract.remotes import Remote
from services.extract.settings import ExtractSettings, hub_address, is_remote, local_path

if TYPE_CHECKING:
    from larder.sources.cards import Card
    from services.extract.remotes.hub import HubFile

_CONCURRENT_DOWNLOADS = 4
_MAGIC_PARQUET = b"PAR1"


class OpenedSource(NamedTuple):
    """An open source with its facts for manifest and run.json."""

    source: Source
    files: Sequence[SourcePart] = ()
    """Its archives or Parquet files, whose sha256 identifies it."""
    kind: Literal["archive", "archives", "parquet"] = "archive"
    """The kind of these files. A single archive has a sha256 that users can compare."""
    listed: dict[str, str | int] = {}  # noqa: RUF012
    """The summary of a listing, if nothing else identifies the source."""
    commit: str = ""
    """The commit of a dataset of the Hugging Face Hub."""
    origin: Origin | None = None
    """The origin of a single downloaded archive."""


def expand_sources(settings: ExtractSettings) -> list[str]:
    """Return every source that LARDER_SOURCE names, with local patterns expanded."""
    return [path for source in settings.sources for path in _expand_pattern(source)]


def display_source(source: str) -> str:
    """Return a source for display: without the credentials and signatures that URLs may hold."""
    return remotes.redact_source(source) if is_remote(source) else str(local_path(source))


def _expand_pattern(source: str) -> list[str]:
    if is_remote(source) or not glob.has_magic(source) or local_path(source).exists():
        return [source]
    return sorted(glob.glob(str(local_path(source)), recursive=True)) or [source]


def open_several(sources: Sequence[str], settings: ExtractSettings, scratch: Path, reporter: Reporter) -> OpenedSource:
    """Open several archives or several Parquet files, and download remote ones."""
    parts = []
    for source in sources:
        if source.startswith("s3:") and (below := _below_prefix(source, settings, scratch, reporter)) is not None:
            parts += below
        elif is_remote(source):
            parts.append(_fetch_one(source, settings, scratch, reporter))
        else:
            parts.append(_local_part(local_path(source)))
    name = f"{display_source(sources[0])} and {len(sources) - 1} more"
    return _open_parts(name, parts, settings, reporter)


def _below_prefix(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> list[SourcePart] | None:
    """Download the archives or Parquet files below a prefix. Return None if `source` is an object."""
    from larder.sources.prefix_reader import is_prefix
    from services.extract.remotes.prefix import PrefixDownloader

    if not is_prefix(source, settings):
        return None
    prefix = PrefixDownloader(source, settings, settings.max_files)
    files = [item for item in prefix.list() if is_archive(item.path) or is_parquet(item.path)]
    if not files:
        raise InputError(f"{source} holds no archives or Parquet files", next_step="check LARDER_SOURCE")
    folder = _fetch_all(source, files, prefix.fetch, scratch, source, reporter)
    return [SourcePart(folder / item.path, item.path) for item in files]


def _local_part(path: Path) -> SourcePart:
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, and several sources must be archives or Parquet files",
            next_step="give a folder alone as LARDER_SOURCE, or name the archives in it",
        )
    if not path.is_file():
        raise missing_source_error(str(path))
    return SourcePart(path, path.name)


def _fetch_one(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> SourcePart:
    remote = open_remote(source, settings)
    path = download(remote, scratch / _key(source), reporter, settings.max_download)
    return SourcePart(path, _file_name(source))


def open_remote(source: str, settings: ExtractSettings) -> Remote:
    """Return a file on a server. Import only its protocol's client, which takes 0.1 s."""
    if source.startswith("s3:"):
        from services.extract.remotes.s3 import S3Remote

        return S3Remote(source, settings)
    from services.extract.remotes.http import HttpRemote

    return HttpRemote(source, settings.stall_seconds)


def open_prefix(source: str, settings: ExtractSettings, scratch: Path, reporter: Reporter) -> OpenedSource:
    """Open the objects below a prefix. Files are read in place; archives and Parquet files are downloaded."""
    from larder.sources.prefix_reader import S3Object
    from services.extract.remotes.prefix import ListingFile, PrefixDownloader, PrefixSource

    prefix, kinds = PrefixDownloader(source, settings, settings.max_files), KindDetector()
    folder = scratch / _key(source)

    def counted(objects: Iterable[S3Object], task: Task) -> Iterator[S3Object]:
        for item in objects:
            kinds.add(item.path)
            task.advance()
            yield item

    listing = ListingFile(folder / "listing.jsonl")
    with reporter.task("list", None, "objects") as task:
        listing.write(counted(prefix.list(), task))
    if not listing.files:
        raise InputError(f"{source} holds no objects", next_step="check LARDER_SOURCE: bucket and prefix")
    reporter.event(
        "listed", f"{source} holds {format_amount(listing.files, 'objects')}, {format_amount(listing.bytes, 'B')}"
    )
    if kinds.kind == "files":
        summary: dict[str, str | int] = {
            "kind": "objects",
            "files": listing.files,
            "bytes": listing.bytes,
            "listing": listing.sha256,
        }
        return OpenedSource(PrefixSource(prefix, listing), listed=summary)
    whole = kinds.kind == "archives"
    chosen_objects = [
        item
        for item in listing
        if not is_hidden(item.path) and (whole or is_parquet(item.path) or item.path == "README.md")
    ]
    return open_local_folder(
        _fetch_all(source, chosen_objects, prefix.fetch, scratch, source, reporter), source, settings, reporter
    )


def open_hub(settings: ExtractSettings, scratch: Path, reporter: Reporter) -> OpenedSource:
    """Open a dataset of the Hugging Face Hub at its revision's current commit, which run.json records."""
    from services.extract.remotes.hub import HubDataset

    hub = HubDataset(
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
    kinds = KindDetector()
    for path in paths:
        kinds.add(path)
    if not (kinds.images or kinds.tables or kinds.archives):
        raise BadSourceError(
            f"{hub.name} holds no Parquet files, images or archives at the commit {hub.commit[:12]}",
            next_step=f"try {hub.name}@refs/convert/parquet, where the hub keeps Parquet files of many datasets",
        )
    scratch = scratch / _key(f"{settings.source} {hub.commit}")

    def fetch_all(chosen_files: Sequence[HubFile]) -> Path:
        return _fetch_all("hub", chosen_files, hub.fetch, scratch, hub.name, reporter)

    if kinds.kind == "parquet":
        from larder.sources.cards import choose_files

        card = [file] if (file := hub.card()) is not None else []
        folder = fetch_all(card)
        chosen = choose_files(filter(is_parquet, paths), _card(folder), hub.name)
        fetch_all([paths[path] for path in chosen.splits])
    else:
        folder = fetch_all(files)
    opened = open_local_folder(folder, hub.name, settings, reporter)
    return opened._replace(commit=hub.commit)


def open_local_folder(folder: Path, name: str, settings: ExtractSettings, reporter: Reporter) -> OpenedSource:
    """Open a local folder: its files as they are, its archives with the files beside them, or its Parquet files."""
    source = FolderSource(folder, name, make_source_options(settings))
    archives: list[str] = []

    def record_archives() -> Iterator[str]:
        for member in source.scan():
            if (is_archive(member.path) or is_parquet(member.path)) and not is_hidden(member.path):
                archives.append(member.path)
            yield member.path

    kind = detect_kind(record_archives())
    if kind == "files":
        return OpenedSource(source)
    parts = [SourcePart(folder / path, path) for path in sorted(archives) if is_parquet(path) == (kind == "parquet")]
    if kind == "parquet":
        return _open_parquet(name, parts, _card(folder), settings, reporter)
    return OpenedSource(
        MultiArchiveSource(name, parts, settings.archive_folders, make_source_options(settings), folder),
        parts,
        "archives",
    )


def make_source_options(settings: ExtractSettings, inner: Path | None = None) -> SourceOptions:
    """Return the options to read archives and folders. Inner archives are unpacked only if `inner` is a folder."""
    limits = SourceLimits(settings.max_files, settings.max_unpacked)
    unpack_inner = settings.inner_archives and inner is not None
    return SourceOptions(limits, settings.zip_encoding, unpack_inner, settings.follow_links, inner)


def open_file(path: Path, name: str, settings: ExtractSettings, reporter: Reporter, inner: Path) -> OpenedSource:
    """Open one file, an archive or a Parquet file by its content."""
    part = SourcePart(path, _file_name(name))
    if path.is_file() and _is_parquet(part):
        from larder.sources.cards import Card

        return _open_parquet(name, [part], Card(), settings, reporter)
    return OpenedSource(open_local(path, name, make_source_options(settings, inner)), [part])


def _open_parts(name: str, parts: Sequence[SourcePart], settings: ExtractSettings, reporter: Reporter) -> OpenedSource:
    tables = [part for part in parts if _is_parquet(part)]
    if tables and len(tables) < len(parts):
        other = next(part for part in parts if part not in tables)
        raise InputError(
            f"{tables[0].name} is a Parquet file, and {other.name} is not", next_step="name files of one kind"
        )
    if tables:
        from larder.sources.cards import Card

        return _open_parquet(name, parts, Card(), settings, reporter)
    return OpenedSource(
        MultiArchiveSource(name, parts, settings.archive_folders, make_source_options(settings)), parts, "archives"
    )


def _open_parquet(
    name: str, parts: Sequence[SourcePart], card: Card, settings: ExtractSettings, reporter: Reporter
) -> OpenedSource:
    from larder.sources.parquet_dataset import open_parquet  # takes 0.5 s

    return OpenedSource(open_parquet(name, parts, card, settings, reporter), parts, "parquet")


def _file_name(source: str) -> str:
    """Return the file name in a source's address."""
    if source.startswith(("http://", "https://")):
        source = unquote(urlsplit(source).path)
    return source.rstrip("/").rpartition("/")[2] or "file"


def _is_parquet(part: SourcePart) -> bool:
    with part.path.open("rb") as file:
        return file.read(len(_MAGIC_PARQUET)) == _MAGIC_PARQUET


def _card(folder: Path) -> Card:
    from larder.sources.cards import MAX_CARD_BYTES, Card, read_card

    path = folder / "README.md"
    if not path.is_file():
        return Card()
    with path.open("rb") as file:
        return read_card(file.read(MAX_CARD_BYTES))


def _fetch_all(
    key: str,
    files: Sequence[Any],
    fetch: Callable[[Any, Path, Reporter], Path],
    scratch: Path,
    name: str,
    reporter: Reporter,
) -> Path:
    """Download files in parallel and return their folder.

    A file appears there once it is complete and checked. Files of earlier runs since the last boot are kept.
    """
    scratch = scratch / _key(f"{key} {boot_id()}")
    folder, incoming = scratch / "files", scratch / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if _length(folder / file.path) != file.bytes]
    total, left = sum(file.bytes for file in files), sum(file.bytes for file in missing)
    require_space(scratch, total + left, f"{name} with its unpacked files")
    with reporter.task("download", total, "B", done=total - left) as task:

        def fetch_file(file: Any) -> None:
            path = fetch(file, incoming, _SubtaskReporter(reporter, task))
            target = folder / safe_path(file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

        with ThreadPoolExecutor(_CONCURRENT_DOWNLOADS) as pool:
            jobs = [pool.submit(fetch_file, file) for file in missing]
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


class _SubtaskReporter(NullReporter):
    """Reports to a larger task: adds the bytes to it and passes events on."""

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
