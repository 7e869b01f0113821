"""What a round's process does: measure an arm or an upper bound, and return the result as JSON types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.bench.arms import ARMS, Layout, View, missing_packages
from larder.bench.comparison.images import ImageSource, encoded_images
from larder.bench.comparison.job_progress import counted, write_progress
from larder.bench.comparison.plan import WARM_UP, Run
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_parts import PixelError, Round, StepsRecord
from larder.bench.summarize import AGAIN, NOTHING
from larder.errors import InputError

if TYPE_CHECKING:
    from larder.bench.comparison.epoch import Counters, EpochResult
    from larder.bench.measured_loader import MeasuredLoader
    from larder.loaders.loader import Batch

PRELOADED = (
    "larder.bench.comparison.work",
    "larder.bench.comparison.epoch",
    "larder.bench.comparison.reference",
    "larder.bench.comparison.rooflines",
    "larder.bench.open_arm",
    "larder.bucket",
    "larder.loaders.preprocessing",
    "larder.loaders.fast_shards",
    "larder.loaders.image_folder",
    "larder.stream.shard_stream",
    "larder.loaders.s3_reader",
    "larder.loaders.litdata_images",
    "webdataset",
)
"""Modules that most arms import."""
REFERENCES: Mapping[View, str] = {"crop": "reference.npz", "squash": "reference-squashed.npz"}
NOTHING_BATCHES = 2000
"""Batches of the arm that costs nothing: enough for a precise mean."""
_LOCAL: tuple[Layout, ...] = ("tree", "tar")
"""Layouts on local disk."""
_LOCAL_FILES = 2000
"""Files whose state in the page cache is determined; of more files, evenly spread ones."""


class Job(NamedTuple):
    """What a process does. It is pickled."""

    kind: str
    """`reference`, or the kind of `run.entry`."""
    run: Run | None
    """The run; None for the reference."""
    settings: ComparisonSettings
    folder: Path
    """Folder of the comparison, which holds the reference."""
    source: ImageSource | None
    """Where encoded images are."""
    environ: Mapping[str, str] = {}
    """Environment variables of the arm's library."""
    batches: int = 0
    """Batches of an epoch; 0 is all."""
    epochs: int = 1
    """Epochs to measure; an arm with a cache measures both of its epochs if this is 0."""
    bytes_per_img: float = 1.0
    distant: Path | None = None
    """Counters of the proxy that makes the store distant."""
    progress: Path | None = None
    """File that says how far the job is (`job_progress`)."""
    samples: int = 0
    """Samples of the split; 0 is unknown."""


def do(job: Job) -> dict[str, Any]:
    """Do a job. Raises what the arm raises."""
    os.environ.update(job.environ)
    if job.kind == "reference":
        return _make_reference(job)
    return {"arm": _measure_arm, "roofline": _measure_roofline}[job.kind](job)


def _make_reference(job: Job) -> dict[str, Any]:
    from larder.bench.comparison.reference import build_reference, write_reference

    assert job.source is not None
    threads, digests = max(job.settings.worker_counts), set[str]()
    arms = [name for name in job.settings.chosen_arms if not missing_packages(name)]
    for view in dict.fromkeys(["crop", *(ARMS[name].view for name in arms)]):
        images = counted(encoded_images(job.source, job.settings), job.progress, job.samples)
        samples = build_reference(images, threads, view)
        write_reference(job.folder / REFERENCES[view], samples)
        digests.add(samples.digest())
    [digest] = digests  # of ids and labels, which no view changes
    return {"digest": digest}


def _measure_roofline(job: Job) -> dict[str, Any]:
    from larder.bench.comparison.rooflines import measure_roofline

    assert job.run is not None and job.source is not None
    entry = job.run.entry
    bound = measure_roofline(entry.name, job.source, job.settings, entry.workers, job.bytes_per_img)
    return dict(bound._asdict())


def _measure_arm(job: Job) -> dict[str, Any]:
    from larder.bench.comparison.reference import read_reference

    assert job.run is not None
    entry, started, begin = job.run.entry, datetime.now(UTC), perf_counter()
    settings = job.settings.model_copy(update={"workers": entry.workers, "sweep": ""})
    steps: StepsRecord | None = None
    with ExitStack() as stack:
        arm = ARMS.get(entry.name.removesuffix(AGAIN))
        reference = read_reference(job.folder / REFERENCES[arm.view if arm else "crop"])
        if entry.name == NOTHING:
            reader, opened, results = "nothing", begin, [_measure_nothing(settings.batch_size)]
        else:
            measured = _open(entry.name.removesuffix(AGAIN), settings, stack)
            reader, opened = measured.loader.reader, perf_counter()
            counters = _counters(entry.name.removesuffix(AGAIN), measured, settings, job.distant)
            if settings.quick or job.run.round == WARM_UP:
                counters = counters._replace(memory_seconds=1.0)
            results = list(_measure_epochs(job, measured, counters, reference))
            steps = _measure_steps(job, measured)
    return {
        "round": Round(
            arm=entry.name,
            workers=entry.workers,
            round=job.run.round,
            position=job.run.position,
            started_utc=started.isoformat(timespec="seconds"),
            process_s=round(perf_counter() - begin, 3),
            open_s=round(opened - begin, 4),
            epochs=[result.record for result in results],
            steps=steps,
        ).model_dump(mode="json"),
        "reader": reader,
        "pixel_error": _dump(_worst([result.pixel_error for result in results])),
    }


def _open(name: str, settings: ComparisonSettings, stack: ExitStack) -> MeasuredLoader:
    from larder.bench.open_arm import open_arm
    from larder.progress import NullReporter

    measured = stack.enter_context(open_arm(name, settings, NullReporter()))
    stack.callback(measured.loader.close)
    return measured


def _measure_epochs(job: Job, measured: MeasuredLoader, counters: Counters, reference: Any) -> Iterator[EpochResult]:
    from larder.bench.comparison.epoch import measure_epoch

    assert job.run is not None
    loader = measured.loader
    batches = min(job.batches or len(loader), len(loader))
    is_whole = batches == len(loader)
    epochs = job.epochs or (2 if is_whole and len(measured.passes) > 1 else 1)
    images = loader.images if is_whole else batches * job.settings.batch_size
    for number in range(1, epochs + 1):
        order = 2 * job.run.round + number - 1
        counters = counters._replace(report=_reporter(job, (number - 1) * images, epochs * images))
        result = measure_epoch(loader.read(order, batches), number, counters, reference, is_whole=is_whole)
        if not result.record.images:  # nothing can be said per image
            raise InputError(
                f"epoch {number} had no images; the split has {loader.images:,}",
                next_step=f"look for warnings of the library: {loader.reader}",
            )
        yield result


def _reporter(job: Job, before: int, total: int) -> Callable[[int], None]:
    """Return what is told how many images of an epoch have come, after `before` images of earlier ones."""
    return lambda images: write_progress(job.progress, before + images, total)


def _measure_steps(job: Job, measured: MeasuredLoader) -> StepsRecord | None:
    """Train on a further epoch if LARDER_DEVICE asks for it; not in the warm-up, and once in a round."""
    assert job.run is not None
    if job.settings.device == "auto" or job.run.round == WARM_UP or job.run.entry.name.endswith(AGAIN):
        return None
    from larder.bench.comparison.steps import MIN_BATCHES, Trainer, measure_steps

    loader = measured.loader
    batches = min(max(job.batches, MIN_BATCHES) if job.batches else len(loader), len(loader))
    trainer = Trainer(job.settings.device, len(loader.classes))
    return measure_steps(loader.read(2 * job.run.round + 1, batches), trainer)


def _measure_nothing(batch_size: int) -> EpochResult:
    """Measure the loop itself, with the same work on each batch."""
    import torch

    from larder.bench.comparison.epoch import Counters, measure_epoch
    from larder.bench.received import interface_bytes

    batch = torch.zeros(batch_size, 3, 224, 224), torch.zeros(batch_size, dtype=torch.int64)

    def batches() -> Iterator[Batch]:
        for _ in range(NOTHING_BATCHES):
            yield batch

    return measure_epoch(batches(), 1, Counters(lambda: None, interface_bytes), None, is_whole=False)


def _counters(name: str, measured: MeasuredLoader, settings: ComparisonSettings, distant: Path | None) -> Counters:
    from larder.bench.comparison.epoch import Counters
    from larder.distant.proxy import read_counters
    from larder.loaders.traffic import NetworkTraffic

    layout = ARMS[name].layout
    network, received = measured.network, measured.received
    if distant is not None:

        def network_of_proxy() -> NetworkTraffic:
            traffic = read_counters(distant)
            return NetworkTraffic(traffic.received_bytes, traffic.turns)

        def received_of_proxy() -> int:
            return read_counters(distant).received_bytes

        received = received_of_proxy  # the interfaces would count what passes a proxy twice
        if ARMS[name].is_peer and layout not in _LOCAL:
            network = network_of_proxy  # other libraries don't count their traffic
    return Counters(
        network, received, _helper_cpu(layout, settings), _local_files(layout, settings), forked_from=os.getppid()
    )


def _helper_cpu(layout: Layout, settings: ComparisonSettings) -> Callable[[], float]:
    """Return the counter of the CPU time of processes that aren't children: of the rclone that serves a mount."""
    if layout != "mount":
        return lambda: 0.0
    from larder.bench.arms.imagefolder_rclone_mount import SOCKET
    from larder.bench.rclone_metrics import read_cpu_seconds

    return lambda: read_cpu_seconds(settings.mount_dir / SOCKET)


def _local_files(layout: Layout, settings: ComparisonSettings) -> list[Path]:
    """Return the files on local disk that an arm reads; of many, evenly spread ones."""
    from larder.bench.peer_data import TAR, locate_peer_data
    from larder.bench.peers import find_files
    from larder.progress import NullReporter

    if layout == "tar":
        return [Path(locate_peer_data(settings, "tar").where) / TAR]
    if layout != "tree":
        return []
    folder, _, table = find_files(settings, NullReporter())
    return [folder / table.path(number) for number in range(0, len(table), max(len(table) // _LOCAL_FILES, 1))]


def _worst(errors: list[PixelError | None]) -> PixelError | None:
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: (error.mean, error.max)) if known else None


def _dump(error: PixelError | None) -> dict[str, Any] | None:
    return None if error is None else error.model_dump(mode="json")
