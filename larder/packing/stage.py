"""Run a packing stage, from its settings to its summary."""

from __future__ import annotations

import json

from larder.artifacts import find_on_volume
from larder.contract import Manifest
from larder.dataset import folder_of
from larder.engines import Engine, open_engine
from larder.ledger import Ledger
from larder.next_step import StageRun
from larder.packing.pack_input import InputTree, find_input_tree
from larder.packing.pack_layout import PackLayout
from larder.packing.run import PackFormat, PackJob, PackRun
from larder.packing.settings import PackSettings
from larder.packing.store import StoreTarget
from larder.packing.target import Target
from larder.packing.volume import VolumeTarget
from larder.progress import Reporter, format_amount
from larder.stage import Clock, StageOutcome
from larder.volume import StagedArtifact

_LARGE_BYTES = 256 << 20
"""Size of a tree from which on workers are started at once. One process packs this much in about a second."""
_READ_BY = {"webdataset": "webdataset", "litdata": "litdata_streaming"}
"""The bench arm that reads each artifact from a store."""


def pack(settings: PackSettings, format: PackFormat, reporter: Reporter) -> StageOutcome:
    """Run a packing stage, or do nothing if the packs are up to date.

    Args:
        settings: Settings of the stage.
        format: Format of the packs.
        reporter: Reports progress.

    Returns:
        The stage's summary.
    """
    clock = Clock()
    tree = find_input_tree(settings, reporter)
    workers = _Workers(settings, format.layout, tree, reporter)
    if settings.dest:
        workers.start_early()  # they start while this process imports the S3 client
    staged_artifact = _open_staged_artifact(settings, format.layout, settings.dataset or tree.name, reporter)
    staged_artifact.recover()
    target: Target = VolumeTarget(staged_artifact, reporter)
    if settings.dest:
        target = StoreTarget(settings, staged_artifact, format.layout.artifact, reporter)
    job = PackJob(settings, format, tree, staged_artifact, target, reporter)
    current = None if settings.force else job.target.up_to_date(tree.digest, job.shaping)
    if current is not None:
        job.target.delete_stale(current)
        what = f"up to date: {_describe_size(current, job.target)}, {job.target.comparison}"
        return StageOutcome(what, _next_step(job), {"up_to_date": True})
    workers.start_early()
    return _make_outcome(job, _run(job, workers.engine, clock), clock.seconds)


class _Workers:
    """The engine of a packing stage. For a large tree, its workers are started before the work is planned."""

    def __init__(self, settings: PackSettings, layout: PackLayout, tree: InputTree, reporter: Reporter) -> None:
        self._large = tree.manifest.bytes >= _LARGE_BYTES
        # One process packs a small tree onto a disk in about the time in which workers would start.
        serial_seconds = settings.workers_after * (1 if self._large or settings.dest else 4)
        self.engine = open_engine(
            settings.engine, settings.processes, serial_seconds, settings.ray_address, reporter.event
        )
        target = StoreTarget if settings.dest else VolumeTarget
        self._imports = (*target.imports, type(layout).__module__, *layout.imports)

    def start_early(self) -> None:
        """Start the workers if the tree is large."""
        if self._large:
            self.engine.prepare(self._imports)


def _open_staged_artifact(
    settings: PackSettings, layout: PackLayout, dataset: str, reporter: Reporter
) -> StagedArtifact:
    if settings.dest:  # the volume holds only the ledger and indexes
        return StagedArtifact(settings.volume, folder_of(dataset, layout.artifact))
    return StagedArtifact(settings.volume, find_on_volume(settings.volume, layout.artifact, dataset, reporter))


def _run(job: PackJob, engine: Engine, clock: Clock) -> Manifest:
    """Pack, or continue an earlier run, and return the manifest in place."""
    staged_artifact = job.staged_artifact
    key = json.dumps([job.tree.digest, job.shaping, job.settings.dest])
    with staged_artifact.lock(), Ledger(staged_artifact.ledger_path, key) as ledger:
        if staged_artifact.resume(ledger) and len(ledger):
            done = format_amount(len(ledger), "files")
            job.reporter.event("resume", f"continuing an earlier run, which has done {done}")
        return PackRun(job, ledger).run(engine, clock)


def _make_outcome(job: PackJob, manifest: Manifest, seconds: float) -> StageOutcome:
    images = job.tree.manifest.files
    speed = f"in {seconds:.1f} s ({images / max(seconds, 1e-9):,.0f} images/s)"
    return StageOutcome(
        f"{format_amount(images, 'images')} in {_describe_size(manifest, job.target)}, {speed}",
        _next_step(job),
        {"images": images, "files": manifest.files, "bytes": manifest.bytes, "seconds": round(seconds, 3)},
    )


def _next_step(job: PackJob) -> str:
    """Return what to run after packing: for packs in a store, a stage that reads them there."""
    if not job.settings.dest:
        return job.format.next_step
    prefix = job.settings.dest.removeprefix("s3://").partition("/")[2].rpartition("/")[0]
    bench = StageRun("bench").with_settings(LARDER_ARM=_READ_BY[job.format.layout.artifact], S3_PREFIX=prefix)
    return f"{bench}, or {StageRun('verify').with_settings(S3_PREFIX=prefix)}"


def _describe_size(manifest: Manifest, target: Target) -> str:
    return f"{format_amount(manifest.files, 'files')} ({format_amount(manifest.bytes, 'B')}) in {target.name}"
