"""Compare the artifact with what the store's manifest and index say, before the store is listed."""

from __future__ import annotations

from typing import NamedTuple

from larder.contract import META, Manifest, index_name, parse_index, read_index
from larder.errors import ConfigurationError, InputError
from larder.fingerprint import ETAG_SETTINGS
from services.load.job import LoadJob, with_progress


class Current(NamedTuple):
    """The dataset in the store, as its readers find it."""

    manifest: Manifest | None
    """Its manifest; None if there is none, or readers can't use it."""
    damaged: bool = False
    """Whether there is a manifest that readers can't use: it or its index is damaged."""


def compare(job: LoadJob) -> Current:
    """Record the expected files in the job's state, and which of them the store already holds, with their ETags.

    Raises:
        ConfigurationError: If the store holds another dataset.
        InputError: If an index or a manifest is invalid.
    """
    current = _find_current(job)
    with job.reporter.task("reading the index", job.source.files, "files") as task:
        job.state.add_expected(with_progress(read_index(job.data, job.source), task.advance))
    if current.manifest is None or _compare_with_index(job, current.manifest):
        return current
    job.reporter.event("repair", f"the index in {job.remote.uri} is missing or damaged, so it is not used")
    return Current(None, damaged=True)


def require_same_dataset(old: Manifest | None, new: Manifest, place: str) -> None:
    """Raise ConfigurationError if `place` in the store holds another dataset than `new`."""
    if old is not None and old.dataset != new.dataset:
        raise ConfigurationError(
            f"{place} holds the dataset {old.dataset!r}, and this is {new.dataset!r}",
            next_step="set S3_PREFIX or another S3_BUCKET, or LARDER_FORCE=true to put this one in its place",
        )


def _find_current(job: LoadJob) -> Current:
    try:
        manifest = job.remote.find_manifest()
    except InputError:
        if not job.settings.force:
            raise
        return Current(None, damaged=True)
    if not job.settings.force:
        require_same_dataset(manifest, job.source, job.remote.uri)
    return Current(manifest)


def _compare_with_index(job: LoadJob, manifest: Manifest) -> bool:
    """Compare with the index in the store. Return False if the index is missing or damaged."""
    with job.index_file() as file:
        digest = job.remote.download(f"{META}/{index_name(manifest)}", file, manifest.index.bytes)
        if digest != manifest.index.sha256:
            return False
        try:
            job.state.compare(parse_index(file), etags=manifest.settings.items() >= ETAG_SETTINGS.items())
        except InputError:  # readers can't use it either
            return False
    return True
