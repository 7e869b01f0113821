"""Bring a dataset into the volume: fetch, check, unpack, and leave a manifest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larder import sample
from larder.contract import META, IndexEntry, Manifest, find_manifest, first_missing, read_run
from larder.engines.local import LocalEngine
from larder.errors import ConfigurationError, InputError
from larder.ledger import Ledger
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.sources import FolderSource, GeneratedSource, Limits, Options, TooLargeError, absent, open_local
from larder.sources.inner import WithInner
from larder.sources.members import CHUNK_BYTES, BadSourceError, Source
from larder.stage import Clock, Outcome
from larder.volume import RAW, Slot, remove_tree, require_space
from services.extract.download import download
from services.extract.remotes import Remote, redact
from services.extract.settings import ExtractSettings
from services.extract.unpack import unpack

NEXT_STEP = str(Run("transform"))

_INNER = "inner"
"""The folder for archives that are copied out of the archive; the swap deletes it."""
_SPLIT_NAMES = {"training", "validation", "evaluation", "train", "val", "valid", "test", "eval"}


def extract(settings: ExtractSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Returns at once when the volume holds the same source already."""
    clock = Clock()
    slot = Slot(settings.volume, RAW)
    wanted = _wanted(settings)
    slot.recover()
    if not settings.force and (present := _up_to_date(slot, wanted, reporter)) is not None:
        return Outcome(f"up to date: {_size(present)} from {wanted['source']}", NEXT_STEP, {"up_to_date": True})
    with slot.lock():
        try:
            manifest = _make(settings, slot, wanted, clock, reporter)
        except BadSourceError:
            if slot.work.exists():
                remove_tree(slot.work)  # or a better copy would be mixed with what this one left
            raise
    rate = manifest.files / max(clock.seconds, 1e-9)
    return Outcome(
        f"{_size(manifest)} from {wanted['source']} in {clock.seconds:.1f} s ({rate:,.0f} files/s)", NEXT_STEP,
        {"files": manifest.files, "bytes": manifest.bytes, "seconds": round(clock.seconds, 3)},
    )  # fmt: skip


def _make(settings: ExtractSettings, slot: Slot, wanted: dict[str, Any], clock: Clock, reporter: Reporter) -> Manifest:
    """Fetch and unpack the source, and commit it."""
    source, archive = _open_source(settings, slot, reporter)
    with _sha256_beside(archive) as sha256, Ledger(slot.ledger_path, json.dumps(wanted, sort_keys=True)) as ledger:
        if slot.resume(ledger) and len(ledger):
            reporter.event("resume", f"continuing an earlier run, which has done {amount(len(ledger), 'files')}")
        if settings.source == sample.NAME:
            expected = sample.expected_bytes(settings.sample_images) - sum(entry.bytes for entry in ledger.entries())
            require_space(settings.volume, expected, f"a sample of {settings.sample_images:,} images")
        engine = LocalEngine(settings.workers, settings.workers_after)
        try:
            unpack(source, slot.staged, ledger, engine, reporter, settings.max_files, settings.max_unpacked)
        except TooLargeError:  # nothing of it is kept but a download, for a run with other limits
            for folder in (slot.staged, slot.work / _INNER):
                if folder.exists():
                    remove_tree(folder)
            ledger.clear()
            raise
        reporter.event("commit", "checking the digest, writing the index, flushing to disk")
        made_from = _made_from(settings, source, archive, sha256)
        return _commit(slot, ledger, wanted["dataset"], made_from, clock.record(**wanted, workers=settings.workers))


def _wanted(settings: ExtractSettings) -> dict[str, Any]:
    """What identifies the source without reading it; kept in run.json, so that a second run sees no change."""
    if settings.source == sample.NAME:
        numbers = {"images": settings.sample_images, "seed": settings.seed, "generator": sample.GENERATOR_VERSION}
        return {"source": sample.NAME, "dataset": sample.NAME, "state": numbers}
    if settings.is_remote:
        address = hashlib.sha256(settings.source.encode()).hexdigest()
        source, state = redact(settings.source), {"address": address, "sha256": settings.source_sha256}
    else:
        source, state = str(settings.local_path), _state_of(settings)
    return {"source": source, "dataset": settings.dataset, "state": {**state, **_unusual(settings)}}


def _unusual(settings: ExtractSettings) -> dict[str, Any]:
    """What changes the files that a source gives, where it isn't the default: data made before know nothing of it."""
    fields = ExtractSettings.model_fields
    chosen = {name: getattr(settings, name) for name in ("zip_encoding", "inner_archives", "follow_links")}
    return {name: value for name, value in chosen.items() if value != fields[name].default}


def _options(settings: ExtractSettings, work: Path | None = None) -> Options:
    return Options(
        Limits(settings.max_files, settings.max_unpacked), settings.zip_encoding, settings.inner_archives,
        settings.follow_links, work,
    )  # fmt: skip


def _state_of(settings: ExtractSettings) -> dict[str, Any]:
    """What tells a local source from the same one after a change."""
    path = settings.local_path
    if not path.exists():
        raise absent(str(path))
    if not path.is_dir():
        facts = path.stat()
        return {"bytes": facts.st_size, "modified_ns": facts.st_mtime_ns, "sha256": settings.source_sha256}
    if settings.source_sha256:
        raise ConfigurationError(
            f"LARDER_SOURCE_SHA256 is of an archive, and {path} is a folder", next_step="leave it out"
        )
    if settings.volume.resolve().is_relative_to(path.resolve()):
        raise ConfigurationError(
            f"the volume {settings.volume} lies inside the source folder {path}",
            next_step="give the folder that holds the images alone as LARDER_SOURCE",
        )
    return {"folder": FolderSource(path, str(path), _options(settings)).state()}


def _up_to_date(slot: Slot, wanted: dict[str, Any], reporter: Reporter) -> Manifest | None:
    """The manifest that is there when it is of the wanted source and all its files are in place."""
    manifest = find_manifest(slot.folder)
    if manifest is None:
        return None
    record = read_run(slot.folder)
    if any(record.get(key) != value for key, value in wanted.items()):
        was = record.get("source", "another source")
        reporter.event("replace", f"the volume holds {was}, which stays until its replacement is complete")
        return None
    if (gone := first_missing(slot.folder, manifest)) is not None:
        reporter.event("repair", f"{slot.folder / gone} is missing or has changed: extracting again")
        return None
    return manifest


def _open_source(settings: ExtractSettings, slot: Slot, reporter: Reporter) -> tuple[Source, Path | None]:
    """The source, and the archive's path where it is one."""
    if settings.source == sample.NAME:
        return GeneratedSource(settings.sample_images, settings.seed), None
    path, name = settings.local_path, settings.source
    if settings.is_remote:
        remote = _open_remote(settings)
        folder = slot.downloads / hashlib.sha256(name.encode()).hexdigest()[:16]
        path, name = download(remote, folder, reporter), remote.name
    return open_local(path, name, _options(settings, slot.work / _INNER)), None if path.is_dir() else path


def _open_remote(settings: ExtractSettings) -> Remote:
    """The source on a server. Only its protocol's client is imported: a tenth of a second for each."""
    if settings.source.startswith("s3:"):
        from services.extract.remotes.s3 import S3Remote

        return S3Remote(settings.source, settings)
    from services.extract.remotes.http import HttpRemote

    return HttpRemote(settings.source)


@contextmanager
def _sha256_beside(archive: Path | None) -> Iterator[Future[str] | None]:
    """The archive's sha256, computed in a thread beside the unpacking; None where there is no archive."""
    if archive is None:
        yield None
        return
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(_sha256, archive, ended)
        finally:
            ended.set()  # nobody waits for the digest of an archive that was refused


def _sha256(path: Path, ended: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while (chunk := file.read(CHUNK_BYTES)) and not ended.is_set():
            digest.update(chunk)
    return digest.hexdigest()


def _made_from(
    settings: ExtractSettings, source: Source, archive: Path | None, sha256: Future[str] | None
) -> dict[str, str | int]:
    """The manifest's `input`. Raises BadSourceError when the archive isn't the one that was asked for."""
    if isinstance(source, GeneratedSource):
        return {"kind": "sample", "images": source.images, "seed": source.seed, "generator": sample.GENERATOR_VERSION}
    if archive is None or sha256 is None:
        return {"kind": "folder"}
    found = sha256.result()
    if settings.source_sha256 and found != settings.source_sha256:
        raise BadSourceError(
            f"{source.name} has the sha256 {found}, expected {settings.source_sha256}",
            next_step="correct LARDER_SOURCE_SHA256, or get the file again: it is not the one that was meant",
        )
    made_from: dict[str, str | int] = {"kind": "archive", "sha256": found, "bytes": archive.stat().st_size}
    if settings.zip_encoding:
        made_from["zip_encoding"] = settings.zip_encoding
    if isinstance(source, WithInner) and source.found:
        made_from["inner_archives"] = source.found
    return made_from


def _commit(slot: Slot, ledger: Ledger, dataset: str, made_from: dict[str, str | int], run: dict[str, Any]) -> Manifest:
    """Take the wrapping folder away, write index and manifest, and swap the data in."""
    if len(ledger) == 0:
        raise InputError("the source holds no files", next_step="check LARDER_SOURCE")
    wrapper = _wrapper(slot.staged)
    files, total = 0, 0

    def unwrapped() -> Iterator[IndexEntry]:
        nonlocal files, total
        for entry in ledger.entries():
            files, total = files + 1, total + entry.bytes
            yield entry._replace(path=entry.path.removeprefix(wrapper))

    index = slot.write_index(unwrapped())
    manifest = Manifest(
        artifact="raw", dataset=dataset, classes=[], splits={}, input=made_from, settings={},
        files=files, bytes=total, index=index,
    )  # fmt: skip
    slot.commit(manifest, run, ledger, inner=wrapper)
    return manifest


def _wrapper(folder: Path) -> str:
    """The folders around the splits that hold nothing else, as a prefix with a slash at the end, or ""."""
    prefix = ""
    while True:
        items = _first_items(folder / prefix, 2)
        if len(items) != 1 or items[0].name in _SPLIT_NAMES or not items[0].is_dir():
            return prefix
        if not _has_folder(items[0].path):
            return prefix  # a folder of images: a class
        prefix += items[0].name + "/"


def _first_items(folder: Path, count: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as items:
        return list(itertools.islice((item for item in items if item.name != META), count))


def _has_folder(path: str) -> bool:
    with os.scandir(path) as items:
        return any(item.is_dir() and item.name != META for item in items)


def _size(manifest: Manifest) -> str:
    return f"{amount(manifest.files, 'files')}, {amount(manifest.bytes, 'B')}"
