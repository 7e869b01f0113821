"""Put the index and the manifest into the store, then delete what no dataset needs any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from larder.bucket import ListedObject
from larder.contract import (
    CLASSES,
    INDEX_IN_STORE,
    MANIFEST,
    META,
    RUN,
    Manifest,
    index_name,
    parse_index,
    require_digest,
    samples_name,
    write_index,
)
from larder.errors import InputError, ServiceError
from larder.progress import format_amount
from larder.stage import Clock
from services.load.class_folders import is_placeholder
from services.load.job import PROBE, LoadJob

_SHOWN = 3


class LoadRunRecord(TypedDict):
    """What load adds to run.json."""

    sent_files: int
    """Number of uploaded files."""
    sent_bytes: int
    """Their total length."""
    verified: str
    """How all objects were verified: `size`, `size and checksum`, or `size and content`."""


def commit(job: LoadJob, current: Manifest | None, clock: Clock, sent: LoadRunRecord) -> Manifest:
    """Upload the index, then the manifest, unless the store has them, and return the manifest.

    Args:
        job: The finished upload.
        current: The manifest in the store, if any.
        clock: Clock of the run, for run.json.
        sent: What was sent, for run.json.

    Raises:
        InputError: If the index of the samples is damaged.
        ServiceError: If a concurrent load has deleted our indexes.
    """
    with job.index_file() as file:
        manifest = job.source.stored(write_index(file, job.state.entries()))
        indexes = {f"{META}/{index_name(manifest)}": file}
        if manifest.samples:
            own = job.data / META / samples_name(job.source)
            require_digest(own, manifest.samples)
            indexes[f"{META}/{samples_name(manifest)}"] = own
        _upload_indexes(job, indexes, all_of_them=manifest != current)
        if manifest != current:
            job.remote.write_manifest(manifest, clock.record(**sent))
            _require_own_indexes(job, indexes)
        return manifest


def _upload_indexes(job: LoadJob, indexes: Mapping[str, Path], *, all_of_them: bool) -> None:
    """Upload indexes, given as local files by path: all, or those that an earlier load hasn't uploaded."""
    remote_bytes = {item.path: item.bytes for item in job.state.unexpected_objects("meta")}
    for path, file in indexes.items():
        if all_of_them or remote_bytes.get(path) != file.stat().st_size:
            job.remote.upload(path, file, "application/x-ndjson")


def _require_own_indexes(job: LoadJob, indexes: Iterable[str]) -> None:
    if not {item.path for item in job.remote.list(META)}.issuperset(indexes):
        raise ServiceError(
            f"{job.remote.uri}: another load has written to the same place at the same time",
            next_step="wait until it has ended, then run this again; two datasets need an S3_PREFIX each",
        )


def delete_stale(job: LoadJob, manifest: Manifest, current: Manifest | None, *, probed: bool) -> None:
    """Delete the objects of previous datasets that this one doesn't list, and larder's temporary objects.

    The indexes that are still in the store list the objects of previous datasets. Temporary objects are probes,
    incoming uploads and those indexes, of this run and earlier ones.

    Args:
        job: The finished upload.
        manifest: The committed manifest.
        current: The manifest that it has replaced, if any. Its indexes stay, since readers may still open them.
        probed: Whether this run has written a probe.
    """
    own = _indexes(manifest)
    for item in job.state.unexpected_objects("meta"):
        if item.path not in own and (match := INDEX_IN_STORE.fullmatch(item.path)) is not None:
            _add_previous_objects(job, item.path, match[1])
    if replaced := sum(1 for _ in job.state.unexpected_objects("before")):
        job.reporter.event(
            "delete",
            f"deleting {replaced:,} objects of the dataset that was in {job.remote.uri} before",
            objects=replaced,
        )
        job.remote.delete(item.path for item in job.state.unexpected_objects("before"))
    keep = {MANIFEST, CLASSES, RUN} | own | (_indexes(current) if current else set())
    temporary = [item.path for item in job.state.unexpected_objects("meta") if item.path not in keep]
    if probed:
        temporary.append(PROBE)
    job.remote.delete(dict.fromkeys(temporary))


def _add_previous_objects(job: LoadJob, path: str, sha256: str) -> None:
    """Record the objects that an index in the store lists. Skip an index that is gone or has changed."""
    with job.index_file() as file:
        if job.remote.download(path, file) == sha256:
            with suppress(InputError):
                job.state.add_previous(parse_index(file))


def _indexes(manifest: Manifest) -> set[str]:
    """Return the paths of the indexes that a manifest names in a store."""
    return {f"{META}/{index_name(manifest)}"} | ({f"{META}/{samples_name(manifest)}"} if manifest.samples else set())


def refuse_folder_of_others(job: LoadJob) -> None:
    """Raise InputError if there are other objects in a folder of the store to which no load has written before.

    They may be the images from which the data were made, and LARDER_DELETE_EXTRA would delete them.
    """
    if any(item.path != PROBE for item in job.state.unexpected_objects("meta")):
        return
    extra, first = _count_extras(job)
    if extra:
        job.remote.delete([PROBE])  # else the folder looks like one of larder's
        raise InputError(
            f"{job.remote.uri} holds {format_amount(extra, 'objects')} that larder hasn't put there, such as "
            f"{', '.join(first)}",
            next_step="set S3_PREFIX, or another LARDER_DATASET, to load into an empty folder; or LARDER_FORCE=true to "
            "load beside them",
        )


def handle_extras(job: LoadJob) -> int:
    """Report the objects that the manifest doesn't list, or delete them if asked to, and return their number."""
    extra, first = _count_extras(job)
    if not extra:
        return 0
    objects = f"{format_amount(extra, 'objects')} in {job.remote.uri}"
    such = f"{objects} that the manifest doesn't name, such as {', '.join(first)}"
    if job.settings.delete_extra:
        job.reporter.event("delete", f"deleting {such}", objects=extra)
        job.remote.delete(item.path for item in _extras(job))
    else:
        job.reporter.event(
            "extra", f"in the way: {such}; LARDER_DELETE_EXTRA=true (--delete-extra) deletes them", objects=extra
        )
    return extra


def _count_extras(job: LoadJob) -> tuple[int, list[str]]:
    """Return the number of objects that the manifest doesn't list, and the first ones."""
    first: list[str] = []
    extra = 0
    for extra, item in enumerate(_extras(job), start=1):
        if extra <= _SHOWN:
            first.append(item.path)
    return extra, first


def _extras(job: LoadJob) -> Iterator[ListedObject]:
    return (item for item in job.state.unexpected_objects("data") if not is_placeholder(item))
