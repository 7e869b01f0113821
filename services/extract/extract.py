"""Bring a dataset into the volume: fetch, check, unpack, and leave a manifest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Iterator, Sequence
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
from larder.sources import FolderSource, GeneratedSource, TooLargeError, absent
from larder.sources.archives import sha256_of_parts
from larder.sources.inner import WithInner
from larder.sources.members import CHUNK_BYTES, BadSourceError
from larder.sources.parts import Part
from larder.splits import known_split
from larder.stage import Clock, Outcome
from larder.volume import RAW, Slot, remove_tree, require_space
from services.extract import gather
from services.extract.download import download, origin, remove_others
from services.extract.gather import Opened, expand, options_of, shown
from services.extract.settings import ExtractSettings, is_remote, local_path
from services.extract.unpack import unpack

NEXT_STEP = str(Run("transform"))

_INNER = "inner"
"""The folder for archives that are copied out of the archive; the swap deletes it."""


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
    opened = _open_source(settings, slot, reporter)
    source, key = opened.source, wanted | _listed(opened)
    with _sha256_beside(opened.files) as sha256, Ledger(slot.ledger_path, json.dumps(key, sort_keys=True)) as ledger:
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
        made_from = _made_from(settings, opened, sha256)
        found = {"found": _found(opened, made_from)} if opened.kind == "archive" and opened.files else {}
        run = clock.record(**wanted, **opened.record, workers=settings.workers, **found)
        return _commit(slot, ledger, wanted["dataset"], made_from, _shaping(settings), run)


def _found(opened: Opened, made_from: dict[str, str | int]) -> dict[str, str | int]:
    """What the archive was, for run.json: its digest can be pinned as LARDER_SOURCE_SHA256."""
    found = {"sha256": made_from["sha256"], "bytes": made_from["bytes"]}
    return found | opened.origin._asdict() if opened.origin else found


def _wanted(settings: ExtractSettings) -> dict[str, Any]:
    """What identifies the source without reading it; kept in run.json, so that a second run sees no change."""
    if settings.source == sample.NAME:
        numbers = {"images": settings.sample_images, "seed": settings.seed, "generator": sample.GENERATOR_VERSION}
        return {"source": sample.NAME, "dataset": sample.NAME, "state": numbers}
    sources = expand(settings)
    state = _state_of(sources[0], settings) if len(sources) == 1 else {"sources": _states_of(sources, settings)}
    name = shown(sources[0]) + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    state |= _shaping(settings) | _unusual(settings, "zip_encoding", "inner_archives", "follow_links")
    return {"source": name, "dataset": settings.dataset, "state": state}


def _shaping(settings: ExtractSettings) -> dict[str, str | int]:
    """The settings that shape the output, where they aren't the default."""
    return {name: str(value) for name, value in _unusual(
        settings, "archive_folders", "image_column", "label_column"
    ).items()}  # fmt: skip


def _unusual(settings: ExtractSettings, *names: str) -> dict[str, Any]:
    """Some settings, where they aren't the default: data made before know nothing of them."""
    fields = ExtractSettings.model_fields
    return {name: value for name in names if (value := getattr(settings, name)) != fields[name].default}


def _states_of(sources: Sequence[str], settings: ExtractSettings) -> str:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(json.dumps([shown(source), _state_of(source, settings)], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _state_of(source: str, settings: ExtractSettings) -> dict[str, Any]:
    """What tells a source from the same one after a change, or from another one where it isn't on this machine."""
    if is_remote(source):
        return {"address": hashlib.sha256(source.encode()).hexdigest(), "sha256": settings.source_sha256}
    path = local_path(source)
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
    return {"folder": FolderSource(path, str(path), options_of(settings)).state()}


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


def _open_source(settings: ExtractSettings, slot: Slot, reporter: Reporter) -> Opened:
    """The source, downloaded where that is needed."""
    sources = [] if settings.source == sample.NAME else expand(settings)
    scratch, inner = slot.downloads / hashlib.sha256(settings.source.encode()).hexdigest()[:16], slot.work / _INNER
    remove_others(slot.downloads, scratch if any(map(is_remote, sources)) else None, reporter)
    if not sources:
        return Opened(GeneratedSource(settings.sample_images, settings.seed))
    if len(sources) > 1:
        return gather.open_several(sources, settings, scratch, reporter)
    source = sources[0]
    if source.startswith("hf:"):
        return gather.open_hub(settings, scratch, reporter)
    if source.startswith("s3:") and _is_prefix(source, settings):
        return gather.open_prefix(source, settings, scratch, reporter)
    if is_remote(source):
        remote = gather.open_remote(source, settings)
        path = download(remote, scratch, reporter, settings.max_download)
        return gather.open_file(path, remote.name, settings, reporter, inner)._replace(origin=origin(scratch))
    path = local_path(source)
    if path.is_dir():
        return gather.open_folder(path, source, settings, reporter)
    return gather.open_file(path, source, settings, reporter, inner)


def _is_prefix(source: str, settings: ExtractSettings) -> bool:
    from larder.sources.prefix import is_prefix

    if not is_prefix(source, settings):
        return False
    if settings.source_sha256:
        raise ConfigurationError(
            f"LARDER_SOURCE_SHA256 is of an archive, and {source} is a prefix", next_step="leave it out"
        )
    return True


@contextmanager
def _sha256_beside(files: Sequence[Part]) -> Iterator[Future[list[str]]]:
    """The sha256 of each of the files, computed in a thread beside the unpacking."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(lambda: [_sha256(file.path, ended) for file in files])
        finally:
            ended.set()  # nobody waits for the digest of an archive that was refused


def _sha256(path: Path, ended: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while (chunk := file.read(CHUNK_BYTES)) and not ended.is_set():
            digest.update(chunk)
    return digest.hexdigest()


def _listed(opened: Opened) -> dict[str, Any]:
    """What is known of a source's state once it is listed: another one is unpacked from its start."""
    return {"listed": opened.listed} if opened.listed else {}


def _made_from(settings: ExtractSettings, opened: Opened, sha256: Future[list[str]]) -> dict[str, str | int]:
    """The manifest's `input`. Raises BadSourceError when the archive isn't the one that was asked for."""
    source = opened.source
    if isinstance(source, GeneratedSource):
        return {"kind": "sample", "images": source.images, "seed": source.seed, "generator": sample.GENERATOR_VERSION}
    if not opened.files:
        return opened.listed or {"kind": "folder"}
    found, total = sha256.result(), sum(file.path.stat().st_size for file in opened.files)
    if opened.kind != "archive":
        several: dict[str, str | int] = {
            "kind": opened.kind, "files": len(found), "bytes": total, "sha256": sha256_of_parts(found, opened.files),
        }  # fmt: skip
        if opened.kind == "archives" and settings.zip_encoding:
            several["zip_encoding"] = settings.zip_encoding
        return several
    if settings.source_sha256 and found[0] != settings.source_sha256:
        raise BadSourceError(
            f"{source.name} has the sha256 {found[0]}, expected {settings.source_sha256}",
            next_step="correct LARDER_SOURCE_SHA256, or get the file again: it is not the one that was meant",
        )
    made_from: dict[str, str | int] = {"kind": "archive", "sha256": found[0], "bytes": total}
    if settings.zip_encoding:
        made_from["zip_encoding"] = settings.zip_encoding
    if isinstance(source, WithInner) and source.found:
        made_from["inner_archives"] = source.found
    return made_from


def _commit(
    slot: Slot, ledger: Ledger, dataset: str, made_from: dict[str, str | int], shaping: dict[str, str | int],
    run: dict[str, Any],
) -> Manifest:  # fmt: skip
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
        artifact="raw", dataset=dataset, classes=[], splits={}, input=made_from, settings=shaping,
        files=files, bytes=total, index=index,
    )  # fmt: skip
    slot.commit(manifest, run, ledger, inner=wrapper)
    return manifest


def _wrapper(folder: Path) -> str:
    """The folders around the splits that hold nothing else, as a prefix with a slash at the end, or ""."""
    prefix = ""
    while True:
        items = _first_items(folder / prefix, 2)
        if len(items) != 1 or known_split(items[0].name) or not items[0].is_dir():
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
