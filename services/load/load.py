"""The load stage: compare, upload, replace, commit."""

from __future__ import annotations

import json

from larder.bucket import BucketPrefix
from larder.contract import read_manifest
from larder.dataset import layout_of
from larder.errors import ConfigurationError, InputError
from larder.fingerprint import ETAG_SETTINGS
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.stage import Clock, StageOutcome
from larder.volume import WORK, StagedArtifact
from services.load.class_folders import keep_class_folders
from services.load.commit import LoadRunRecord, commit, delete_stale, handle_extras
from services.load.compare import compare
from services.load.job import LoadJob, find_creating_stage
from services.load.local_files import LocalFiles
from services.load.reach import check_reachable, with_folder
from services.load.settings import LoadSettings
from services.load.state import SyncState
from services.load.sync import Sync
from services.load.uploader import Uploader
from services.load.verifier import Verifier

_LOADED_BY = {"tree": StageRun("load"), "webdataset": StageRun("load", "shards"), "litdata": StageRun("load", "chunks")}
_BENCH = StageRun("bench")
NEXT_STEP = {
    "tree": f"{_BENCH.with_settings(LARDER_ARM='remote_one_sample')}; or {StageRun('mount')}, then "
    f"{_BENCH.with_settings(LARDER_ARM='imagefolder_rclone_mount')}",
    "webdataset": f"{_BENCH.with_settings(LARDER_ARM='webdataset')}; {StageRun('clean', 'wds')}, if the volume's space "
    "is needed",
    "litdata": f"{_BENCH.with_settings(LARDER_ARM='litdata_streaming')}; {StageRun('clean', 'lit')}, if the "
    "volume's space is needed",
}


def load(settings: LoadSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Upload nothing if the store already holds all files."""
    if settings.folder == "tree" and settings.input.startswith("s3://"):
        raise ConfigurationError(
            "LARDER_INPUT names data in a store, and this uploads the tree that is on the volume",
            next_step=f"unset LARDER_INPUT, and run {StageRun('extract')} with LARDER_SOURCE; shards and chunks can be "
            "packed from a store",
        )
    if settings.task == "reach":
        return check_reachable(settings, reporter)
    settings = with_folder(settings, reporter)
    staged_artifact = StagedArtifact(settings.volume, settings.folder)
    with staged_artifact.lock():  # no other stage changes the data meanwhile
        source = read_manifest(staged_artifact.folder, made_by=find_creating_stage(settings.folder))
        remote = BucketPrefix(settings, settings.folder)
        key = json.dumps([source.digest(), settings.s3_endpoint_url, remote.uri, ETAG_SETTINGS])
        with SyncState(staged_artifact.root / WORK / "load" / f"{settings.folder}.sqlite", key) as state:
            job = LoadJob(settings, reporter, staged_artifact.folder, source, remote, state)
            outcome = _check(job) if settings.task == "check" else _load(job)
            state.remove()
    return outcome


def _load(job: LoadJob) -> StageOutcome:
    """Compare, upload and replace, commit, and clean up, in this order."""
    clock = Clock()
    files = LocalFiles(job)
    verifier = Verifier(job, files)
    uploader = Uploader(job, files, verifier)
    current = Sync(job, verifier, uploader).run(compare(job))
    keep_class_folders(job.source, job.remote, job.state.unexpected_objects("data"), job.settings.transfers)
    sent = LoadRunRecord(sent_files=uploader.files, sent_bytes=uploader.bytes, verified=verifier.method)
    manifest = commit(job, current, clock, sent)
    delete_stale(job, manifest, current, probed=verifier.probed)
    extra = handle_extras(job)

    written = manifest != current
    result = "nothing to send, new manifest written" if written else "up to date"
    if uploader.files:
        result = f"{uploader.files:,} sent ({format_amount(uploader.bytes, 'B')})"
    objects = f"{format_amount(job.source.files, 'objects')} in {job.remote.uri}"
    seconds = clock.seconds
    return StageOutcome(
        f"{objects}: {result}, all verified by {verifier.method}, in {seconds:.1f} s{_describe_unread(files)}",
        NEXT_STEP.get(job.source.artifact, str(StageRun("s3", "check"))),
        {
            "objects": job.source.files,
            "sent": uploader.files,
            "sent_bytes": uploader.bytes,
            "extra": extra,
            "up_to_date": not uploader.files and not written,
            "seconds": round(seconds, 3),
        },
    )


def _check(job: LoadJob) -> StageOutcome:
    """Check that the store holds every file. Raises InputError if it doesn't.

    Objects with a different ETag are read back: if the store encrypts, ETags say nothing about the content.
    """
    files = LocalFiles(job)
    verifier = Verifier(job, files)
    manifest = compare(job).manifest
    known = manifest is not None and manifest == job.source.stored(manifest.index)
    verifier.list_objects()
    doubtful, size = job.state.count_mismatched(verifier.trust)
    mismatched, method = doubtful, verifier.method
    if known and job.settings.verify_remote == "read":
        mismatched = verifier.read_back(job.state.expected(), job.source.bytes)
    elif known and doubtful:
        mismatched = verifier.read_back(job.state.mismatched(verifier.trust), size)
        method += f", {doubtful:,} of them by content"
    if mismatched or not known:
        missing = f"missing or different there: {format_amount(mismatched, 'objects')}"
        raise InputError(
            f"{job.remote.uri} doesn't hold what {job.data} does: "
            + (missing if mismatched else "its manifest is missing or differs"),
            next_step=f"run {_LOADED_BY[layout_of(job.settings.folder)]}",
        )
    objects = f"{format_amount(job.source.files, 'objects')} in {job.remote.uri}"
    return StageOutcome(
        f"{objects}: all there, verified by {method}{_describe_unread(files)}",
        "",
        {"objects": job.source.files},
    )


def _describe_unread(files: LocalFiles) -> str:
    """Describe what was not checked."""
    return "" if files.hashed else "; of the volume, only the index was read"
