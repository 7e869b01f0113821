"""Write the packs that are missing, then the index of the samples, the index of the packs, and the manifest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from larder.contract import IndexSummary, IndexWriter, Manifest, SampleEntry, write_index
from larder.engines import Engine
from larder.errors import REMAKE_TREE, InputError
from larder.ledger import Ledger
from larder.packing.pack import Pack, PackLimits
from larder.packing.pack_input import InputTree
from larder.packing.pack_layout import PackLayout
from larder.packing.plan import plan_packs, require_packable
from larder.packing.settings import PackSettings
from larder.packing.target import Target
from larder.progress import Reporter, Task, format_amount
from larder.stage import Clock
from larder.volume import StagedArtifact

Shaping = dict[str, str | int]
"""Settings that determine the bytes of the packs."""


class PackFormat(NamedTuple):
    """What a packing stage makes."""

    layout: PackLayout
    limits: PackLimits
    """Maximum size of a pack."""
    shaping: Shaping
    """The format's settings that determine the bytes of the packs."""
    next_step: str
    """What to run after packing onto a volume."""


@dataclass(frozen=True)
class PackJob:
    """What is packed, from where to where."""

    settings: PackSettings
    format: PackFormat
    tree: InputTree
    staged_artifact: StagedArtifact
    """Place on the volume for the artifact, or for unfinished work if the packs go to a store."""
    target: Target
    reporter: Reporter

    @property
    def seed(self) -> int | None:
        """Seed of the shuffle; None if the samples aren't shuffled."""
        return self.settings.seed if self.settings.shuffle == "seed" else None

    @property
    def shaping(self) -> Shaping:
        """All settings that determine the bytes of the packs: the order of the samples, and the format's own."""
        order: Shaping = {"shuffle": "none"} if self.seed is None else {"shuffle": "seed", "seed": self.seed}
        return order | self.format.shaping


class PackRun:
    """One run over all packs. The ledger holds the entries of those that are written."""

    def __init__(self, job: PackJob, ledger: Ledger) -> None:
        self._job, self._ledger = job, ledger
        self._planned: dict[str, Pack] = {}
        """All packs by path, without their lines."""

    def run(self, engine: Engine, clock: Clock) -> Manifest:
        """Check, write and commit; return the manifest in place."""
        job, staged_artifact = self._job, self._job.staged_artifact
        staged_artifact.meta_folder.mkdir(parents=True, exist_ok=True)
        index = job.tree.index_file(staged_artifact.work)
        require_packable(index, job.format.layout, job.format.limits)
        job.target.begin(job.tree.manifest, self._ledger)
        with IndexWriter(staged_artifact.meta_folder / "samples.jsonl") as samples:
            self._write_packs(index, samples, engine)
        self._write_extras()
        return self._commit(samples.summary, clock)

    def _write_packs(self, index: Path, samples: IndexWriter, engine: Engine) -> None:
        """Write the missing packs, and the index of all samples."""
        job, images = self._job, self._job.tree.manifest.files
        write = job.target.writer(job.format.layout, job.tree.source)
        with job.reporter.task("packing", images, "images") as task:
            scratch = job.staged_artifact.work
            plan = plan_packs(index, job.format.layout, job.format.limits, job.seed, scratch)
            missing = self._missing(plan, samples, task)
            first = next(missing, None)
            if first is not None:
                if job.format.layout.imports:
                    job.reporter.event("starting", "starting workers, which import libraries first")
                with engine(write, itertools.chain([first], missing)) as results:
                    for entry in results:
                        self._ledger.add([entry])
                        task.advance(self._planned[entry.path].samples)
        if (planned := sum(pack.samples for pack in self._planned.values())) != images:
            raise InputError(
                f"the tree's index lists {format_amount(planned, 'images')}, and its manifest says {images:,}",
                next_step=f"{REMAKE_TREE}, then run this again",
            )

    def _missing(self, packs: Iterator[Pack], samples: IndexWriter, task: Task) -> Iterator[Pack]:
        """Yield the packs that must be written. Write the samples of all packs to the index on the way."""
        for pack in packs:
            self._planned[pack.path] = pack._replace(lines=b"")
            entries = pack.entries()
            for entry, offset in zip(entries, self._job.format.layout.offsets(entries), strict=True):
                label = entry.label or 0
                samples.add(SampleEntry(pack.path, offset, entry.bytes, entry.sha256, label, entry.path, entry.key))
            if self._is_done(pack.path):
                task.advance(pack.samples)
            else:
                self._ledger.drop(pack.path)
                yield pack

    def _write_extras(self) -> None:
        """Write the format's small files beside the packs."""
        digests = {entry.path: entry.sha256 for entry in self._ledger.entries()}
        for path, content in self._job.format.layout.extras(list(self._planned.values()), digests).items():
            if not self._is_done(path):
                self._ledger.drop(path)
                self._ledger.add([self._job.target.put(path, content)])

    def _is_done(self, path: str) -> bool:
        """Return whether this run or an earlier one has written a file that still exists."""
        done = self._ledger.get(path)
        return done is not None and self._job.target.has(done)

    def _commit(self, samples: IndexSummary, clock: Clock) -> Manifest:
        """Write the index of the packs, then the manifest."""
        job, ledger = self._job, self._ledger
        job.reporter.event("commit", f"committing {format_amount(len(ledger), 'files')}")
        index = write_index(job.staged_artifact.meta_folder / "index.jsonl", job.target.finalize(ledger.entries()))
        source = job.tree.manifest
        manifest = Manifest(
            artifact=job.format.layout.artifact,
            dataset=source.dataset,
            classes=source.classes,
            splits=source.splits,
            input={"kind": job.tree.kind, "manifest": job.tree.digest},
            settings=job.shaping,
            files=len(ledger),
            bytes=sum(entry.bytes for entry in ledger.entries()),
            index=index,
            samples=samples,
        )
        return job.target.commit(manifest, clock.record(), ledger)
