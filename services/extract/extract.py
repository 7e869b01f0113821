"""The extract stage: fetch, check and unpack a dataset, and commit it to the volume."""

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
from typing import Any, NotRequired, TypedDict

from larder import sample
from larder.contract import META, IndexEntry, Manifest, find_manifest, find_missing_file, read_run
from larder.engines.local import LocalEngine
from larder.errors import ConfigurationError, InputError
from larder.ledger import Ledger
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.sources import GeneratedSource, TooLargeError
from larder.sources.inner import InnerArchivesSource
from larder.sources.limits import SourceLimits
from larder.sources.members import BUFFER_BYTES, BadSourceError
from larder.sources.multi_archive import sha256_of_parts
from larder.sources.parts import SourcePart
from larder.splits import find_known_split
from larder.stage import Clock, StageOutcome
from larder.volume import RAW, StagedArtifact, remove_tree, require_space
from services.extract import open_sources
from services.extract.download import download, read_origin, remove_other_downloads
from services.extract.identity import identify_source, output_settings
from services.extract.open_sources import OpenedSource, expand_sources
from services.extract.settings import ExtractSettings, is_remote, local_path
from services.extract.unpack import unpack

NEXT_STEP = str(StageRun("transform"))

_INNER = "inner"
"""The folder for archives that are copied out of the archive; the commit deletes it."""


class ExtractRunRecord(TypedDict):
    """What extract adds to run.json."""

    source: str
    """The source, without passwords and query strings."""
    dataset: str
    """Name of the dataset."""
    state: dict[str, Any]
    """What identifies the source without reading it, and the settings that change the output. If it differs, the next
    run extracts again."""
    workers: int
    """Number of worker processes."""
    commit: NotRequired[str]
    """Commit of a dataset of the Hugging Face Hub."""
    found: NotRequired[dict[str, str | int]]
    """Facts of a single archive: `sha256`, `bytes`; of a download, also `url` (after redirects) and `etag`."""


def extract(settings: ExtractSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Return at once if the volume already holds this source."""
    clock = Clock()
    target = StagedArtifact(settings.volume, RAW)
    identity = identify_source(settings)
    target.recover()
    if not settings.force and (present := _up_to_date(target, identity, reporter)) is not None:
        return StageOutcome(
            f"up to date: {_describe_size(present)} from {identity['source']}", NEXT_STEP, {"up_to_date": True}
        )
    with target.lock():
        try:
            manifest = _extract_source(settings, target, identity, clock, reporter)
        except BadSourceError:
            if target.work.exists():
                remove_tree(target.work)  # else files of a bad copy would mix with those of a good one
            raise
    rate = manifest.files / max(clock.seconds, 1e-9)
    return StageOutcome(
        f"{_describe_size(manifest)} from {identity['source']} in {clock.seconds:.1f} s ({rate:,.0f} files/s)",
        NEXT_STEP,
        {"files": manifest.files, "bytes": manifest.bytes, "seconds": round(clock.seconds, 3)},
    )


def _extract_source(
    settings: ExtractSettings, target: StagedArtifact, identity: dict[str, Any], clock: Clock, reporter: Reporter
) -> Manifest:
    """Fetch and unpack the source, and commit it."""
    opened = _open_source(settings, target, reporter)
    source = opened.source
    # The state of a listed source is part of the key: a changed listing restarts the unpacking.
    key = identity | ({"listed": opened.listed} if opened.listed else {})
    with (
        _hash_in_background(opened.files) as sha256,
        Ledger(target.ledger_path, json.dumps(key, sort_keys=True)) as ledger,
    ):
        if target.resume(ledger) and len(ledger):
            reporter.event("resume", f"continuing an earlier run, which has done {format_amount(len(ledger), 'files')}")
        if settings.source == sample.NAME:
            expected = sample.expected_bytes(settings.sample_images) - sum(entry.bytes for entry in ledger.entries())
            require_space(settings.volume, expected, f"a sample of {settings.sample_images:,} images")
        engine = LocalEngine(settings.workers, settings.workers_after)
        limits = SourceLimits(settings.max_files, settings.max_unpacked)
        try:
            unpack(source, target.staged, ledger, engine, reporter, limits)
        except TooLargeError:  # keep only the download, for a run with other limits
            for folder in (target.staged, target.work / _INNER):
                if folder.exists():
                    remove_tree(folder)
            ledger.clear()
            raise
        reporter.event("commit", "checking the digest, writing the index, flushing to disk")
        made_from = _make_manifest_input(settings, opened, sha256)
        run = clock.record(**_make_run_record(identity, opened, made_from, settings.workers))
        return _commit(target, ledger, identity["dataset"], made_from, output_settings(settings), run)


def _make_run_record(
    identity: dict[str, Any], opened: OpenedSource, made_from: dict[str, str | int], workers: int
) -> ExtractRunRecord:
    record = ExtractRunRecord(
        source=identity["source"], dataset=identity["dataset"], state=identity["state"], workers=workers
    )
    if opened.commit:
        record["commit"] = opened.commit
    if opened.kind == "archive" and opened.files:
        record["found"] = _archive_facts(opened, made_from)
    return record


def _archive_facts(opened: OpenedSource, made_from: dict[str, str | int]) -> dict[str, str | int]:
    """Return the archive's digest, size and origin for run.json; the digest can be pinned as LARDER_SOURCE_SHA256."""
    facts = {"sha256": made_from["sha256"], "bytes": made_from["bytes"]}
    return facts | opened.origin._asdict() if opened.origin else facts


def _up_to_date(target: StagedArtifact, identity: dict[str, Any], reporter: Reporter) -> Manifest | None:
    """Return the volume's manifest if it is of this source and no file is missing, else None."""
    manifest = find_manifest(target.folder)
    if manifest is None:
        return None
    record = read_run(target.folder)
    if any(record.get(key) != value for key, value in identity.items()):
        previous = record.get("source", "another source")
        reporter.event("replace", f"the volume holds {previous}, which stays until its replacement is complete")
        return None
    if (missing := find_missing_file(target.folder, manifest)) is not None:
        reporter.event("repair", f"{target.folder / missing} is missing or has changed: extracting again")
        return None
    return manifest


def _open_source(settings: ExtractSettings, target: StagedArtifact, reporter: Reporter) -> OpenedSource:
    """Open the source, and download it first if it is remote."""
    sources = [] if settings.source == sample.NAME else expand_sources(settings)
    scratch, inner = target.downloads / hashlib.sha256(settings.source.encode()).hexdigest()[:16], target.work / _INNER
    remove_other_downloads(target.downloads, scratch if any(map(is_remote, sources)) else None, reporter)
    if not sources:
        return OpenedSource(GeneratedSource(settings.sample_images, settings.seed))
    if len(sources) > 1:
        return open_sources.open_several(sources, settings, scratch, reporter)
    source = sources[0]
    if source.startswith("hf:"):
        return open_sources.open_hub(settings, scratch, reporter)
    if source.startswith("s3:") and _is_prefix(source, settings):
        return open_sources.open_prefix(source, settings, scratch, reporter)
    if is_remote(source):
        remote = open_sources.open_remote(source, settings)
        path = download(remote, scratch, reporter, settings.max_download)
        return open_sources.open_file(path, remote.name, settings, reporter, inner)._replace(
            origin=read_origin(scratch)
        )
    path = local_path(source)
    if path.is_dir():
        return open_sources.open_local_folder(path, source, settings, reporter)
    return open_sources.open_file(path, source, settings, reporter, inner)


def _is_prefix(source: str, settings: ExtractSettings) -> bool:
    from larder.sources.prefix_reader import is_prefix

    if not is_prefix(source, settings):
        return False
    if settings.source_sha256:
        raise ConfigurationError(
            f"LARDER_SOURCE_SHA256 is the digest of an archive, and {source} is a prefix", next_step="leave it out"
        )
    return True


@contextmanager
def _hash_in_background(files: Sequence[SourcePart]) -> Iterator[Future[list[str]]]:
    """Compute the sha256 of each file in a thread while the block unpacks them."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(lambda: [_sha256(file.path, ended) for file in files])
        finally:
            ended.set()  # a refused archive's digest isn't needed


def _sha256(path: Path, ended: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while (chunk := file.read(BUFFER_BYTES)) and not ended.is_set():
            digest.update(chunk)
    return digest.hexdigest()


def _make_manifest_input(
    settings: ExtractSettings, opened: OpenedSource, sha256: Future[list[str]]
) -> dict[str, str | int]:
    """Return the manifest's `input`. Raises BadSourceError if the archive doesn't have the expected sha256."""
    source = opened.source
    if isinstance(source, GeneratedSource):
        return {"kind": "sample", "images": source.images, "seed": source.seed, "generator": sample.GENERATOR_VERSION}
    if not opened.files:
        return opened.listed or {"kind": "folder"}
    digests, total = sha256.result(), sum(file.path.stat().st_size for file in opened.files)
    if opened.kind != "archive":
        several: dict[str, str | int] = {
            "kind": opened.kind,
            "files": len(digests),
            "bytes": total,
            "sha256": sha256_of_parts(digests, opened.files),
        }
        if opened.kind == "archives" and settings.zip_encoding:
            several["zip_encoding"] = settings.zip_encoding
        return several
    if settings.source_sha256 and digests[0] != settings.source_sha256:
        raise BadSourceError(
            f"{source.name} has the sha256 {digests[0]}, expected {settings.source_sha256}",
            next_step="correct LARDER_SOURCE_SHA256, or get the file again: it has another digest",
        )
    made_from: dict[str, str | int] = {"kind": "archive", "sha256": digests[0], "bytes": total}
    if settings.zip_encoding:
        made_from["zip_encoding"] = settings.zip_encoding
    if isinstance(source, InnerArchivesSource) and source.inner_count:
        made_from["inner_archives"] = source.inner_count
    return made_from


def _commit(
    target: StagedArtifact,
    ledger: Ledger,
    dataset: str,
    made_from: dict[str, str | int],
    shaping: dict[str, str | int],
    run: dict[str, Any],
) -> Manifest:
    """Remove the folders that wrap the dataset, write index and manifest, and swap the data in."""
    if len(ledger) == 0:
        raise InputError("the source holds no files", next_step="check LARDER_SOURCE")
    wrapper = _find_wrapper(target.staged)
    files, total = 0, 0

    def unwrapped() -> Iterator[IndexEntry]:
        nonlocal files, total
        for entry in ledger.entries():
            files, total = files + 1, total + entry.bytes
            yield entry._replace(path=entry.path.removeprefix(wrapper))

    index = target.write_index(unwrapped())
    manifest = Manifest(
        artifact="raw",
        dataset=dataset,
        classes=[],
        splits={},
        input=made_from,
        settings=shaping,
        files=files,
        bytes=total,
        index=index,
    )
    target.commit(manifest, run, ledger, inner=wrapper)
    return manifest


def _find_wrapper(folder: Path) -> str:
    """Return the folders that wrap the splits and hold nothing else, as a prefix ending in a slash, or ""."""
    prefix = ""
    while True:
        items = _first_items(folder / prefix, 2)
        if len(items) != 1 or find_known_split(items[0].name) or not items[0].is_dir():
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


def _describe_size(manifest: Manifest) -> str:
    return f"{format_amount(manifest.files, 'files')}, {format_amount(manifest.bytes, 'B')}"
