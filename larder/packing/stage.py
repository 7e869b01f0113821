"""How a packing stage runs: plan, write what isn't there yet, commit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from larder.artifacts import on_volume
from larder.contract import IndexWriter, Manifest, SampleEntry, write_index
from larder.dataset import folder_of
from larder.engines import Engine, open_engine
from larder.errors import TREE_ANEW, InputError
from larder.ledger import Ledger
from larder.next_step import Run
from larder.packing.layout import Layout
from larder.packing.plan import Limits, Pack, plan, require_packable
from larder.packing.settings import PackSettings
from larder.packing.source import Tree, find_tree
from larder.packing.store import StoreTarget
from larder.packing.target import Target
from larder.packing.volume import VolumeTarget
from larder.progress import Reporter, Task, amount
from larder.stage import Clock, Outcome
from larder.volume import Slot

Shaping = dict[str, str | int]
"""Settings that the bytes depend on."""
_REPAID_BYTES = 256 << 20
"""Of so many images it is known beforehand that they repay workers: one process packs them in about a second."""
_READ_BY = {"webdataset": "webdataset", "litdata": "litdata_streaming"}
"""The bench arm that reads each artifact from a store."""


def pack(
    settings: PackSettings, layout: Layout, limits: Limits, shaping: Shaping, next_step: str, reporter: Reporter
) -> Outcome:
    """Run a packing stage. Returns at once when the same packs of the same tree are in place already.

    `shaping` are the format's own settings that the bytes depend on; `next_step` is for packs on a volume.
    """
    clock = Clock()
    if settings.dest:
        prefix = settings.dest.removeprefix("s3://").partition("/")[2].rpartition("/")[0]
        bench = Run("bench").having(LARDER_ARM=_READ_BY[layout.artifact], S3_PREFIX=prefix)
        next_step = f"{bench}, or {Run('verify').having(S3_PREFIX=prefix)}"
    tree = find_tree(settings, reporter)
    repaid = tree.manifest.bytes >= _REPAID_BYTES
    # Onto a disk, one process has packed most of fewer bytes by the time that workers would be there.
    alone_seconds = settings.workers_after * (1 if repaid or settings.dest else 4)
    engine = open_engine(settings.engine, settings.processes, alone_seconds, settings.ray_address, reporter.event)
    needed = (*(StoreTarget if settings.dest else VolumeTarget).imports, type(layout).__module__, *layout.imports)
    if settings.dest and repaid:
        engine.prepare(needed)  # in the time in which this process imports what asks a store
    slot = _slot(settings, layout, settings.dataset or tree.name, reporter)
    slot.recover()
    wanted = _order(settings) | shaping
    target = _target(settings, slot, layout, reporter)
    if not settings.force and (done := target.up_to_date(tree.digest, wanted)) is not None:
        target.tidy(done)
        return Outcome(f"up to date: {_size(done, target)}, {target.seen}", next_step, {"up_to_date": True})
    if repaid:
        engine.prepare(needed)
    with slot.lock(), Ledger(slot.ledger_path, json.dumps([tree.digest, wanted, settings.dest])) as ledger:
        if slot.resume(ledger) and len(ledger):
            reporter.event("resume", f"continuing an earlier run, which has done {amount(len(ledger), 'files')}")
        slot.meta.mkdir(parents=True, exist_ok=True)
        manifest = _Packing(settings, engine, tree, layout, limits, target, ledger, reporter).run(slot, wanted, clock)
    images = tree.manifest.files
    rate = images / max(clock.seconds, 1e-9)
    return Outcome(
        f"{amount(images, 'images')} in {_size(manifest, target)}, in {clock.seconds:.1f} s ({rate:,.0f} images/s)",
        next_step,
        {
            "images": images, "files": manifest.files, "bytes": manifest.bytes,
            "seconds": round(clock.seconds, 3),
        },
    )  # fmt: skip


def _slot(settings: PackSettings, layout: Layout, dataset: str, reporter: Reporter) -> Slot:
    if settings.dest:  # of the volume only room for notes is needed
        return Slot(settings.volume, folder_of(dataset, layout.artifact))
    return Slot(settings.volume, on_volume(settings.volume, layout.artifact, dataset, reporter))


def _target(settings: PackSettings, slot: Slot, layout: Layout, reporter: Reporter) -> Target:
    return StoreTarget(settings, slot, layout.artifact, reporter) if settings.dest else VolumeTarget(slot, reporter)


def _order(settings: PackSettings) -> Shaping:
    return {"shuffle": "seed", "seed": settings.seed} if settings.shuffle == "seed" else {"shuffle": "none"}


def _size(manifest: Manifest, target: Target) -> str:
    return f"{amount(manifest.files, 'files')} ({amount(manifest.bytes, 'B')}) in {target.name}"


class _Packing:
    """One run: a tree, the packs of it that are done, and where they go."""

    def __init__(
        self, settings: PackSettings, engine: Engine, tree: Tree, layout: Layout, limits: Limits, target: Target,
        ledger: Ledger, reporter: Reporter,
    ) -> None:  # fmt: skip
        self._settings, self._engine, self._tree, self._layout, self._limits = settings, engine, tree, layout, limits
        self._target, self._ledger, self._reporter = target, ledger, reporter
        self._planned: dict[str, Pack] = {}
        """Every pack by its path, without its samples."""

    def run(self, slot: Slot, wanted: Shaping, clock: Clock) -> Manifest:
        """Everything in its order."""
        index = self._tree.index_file(slot.work)
        require_packable(index, self._layout, self._limits)
        self._target.begin(self._tree.manifest, self._ledger)
        with IndexWriter(slot.meta / "samples.jsonl") as samples:
            self._write(index, samples)
        digests = {entry.path: entry.sha256 for entry in self._ledger.entries()}
        for path, content in self._layout.extras(list(self._planned.values()), digests).items():
            done = self._ledger.get(path)
            if done is None or not self._target.has(done):
                self._ledger.drop(path)
                self._ledger.add([self._target.put(path, content)])
        self._reporter.event("commit", f"committing {amount(len(self._ledger), 'files')}")
        summary = write_index(slot.meta / "index.jsonl", self._target.settle(self._ledger.entries()))
        source, total = self._tree.manifest, sum(entry.bytes for entry in self._ledger.entries())
        manifest = Manifest(
            artifact=self._layout.artifact, dataset=source.dataset, classes=source.classes, splits=source.splits,
            input={"kind": self._tree.kind, "manifest": self._tree.digest}, settings=wanted, files=len(self._ledger),
            bytes=total, index=summary, samples=samples.summary,
        )  # fmt: skip
        return self._target.commit(manifest, clock.record(), self._ledger)

    def _write(self, index: Path, samples: IndexWriter) -> None:
        """Write the packs that aren't there yet, and a line for each sample of all of them."""
        seed = self._settings.seed if self._settings.shuffle == "seed" else None
        images = self._tree.manifest.files
        writer = self._target.writer(self._layout, self._tree.source)
        with self._reporter.task("packing", images, "images") as task:
            packs = self._missing(plan(index, self._layout, self._limits, seed), samples, task)
            first = next(packs, None)
            if first is not None:
                with self._engine(writer, itertools.chain([first], packs)) as results:
                    for entry in results:
                        self._ledger.add([entry])
                        task.advance(self._planned[entry.path].samples)
        if (planned := sum(pack.samples for pack in self._planned.values())) != images:
            raise InputError(
                f"the tree's index lists {amount(planned, 'images')}, and its manifest says {images:,}",
                next_step=f"{TREE_ANEW}, then run this again",
            )

    def _missing(self, packs: Iterator[Pack], samples: IndexWriter, task: Task) -> Iterator[Pack]:
        """Those of `packs` that are to be written; each one's samples are noted on the way."""
        for pack in packs:
            self._planned[pack.path] = pack._replace(lines=b"")
            entries = pack.entries()
            for entry, offset in zip(entries, self._layout.offsets(entries), strict=True):
                samples.add(
                    SampleEntry(
                        pack.path, offset, entry.bytes, entry.sha256, entry.label or 0, entry.path, entry.key
                    )
                )  # fmt: skip
            done = self._ledger.get(pack.path)
            if done is not None and self._target.has(done):
                task.advance(pack.samples)
                continue
            self._ledger.drop(pack.path)
            yield pack
