"""Which layout suits which images, distance and cores? Draws docs/which-layout.svg, and writes the page's table.

Arms take turns as in `larder compare`, whose code measures them: an unmeasured warm-up, then rounds in random order,
each arm in a process of its own. The store and the link to it run on the cores that the arms leave.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import data
from benchmarks.harness import ROOT, WORK, BenchmarkReport
from benchmarks.line_panels import Panel, draw_panels
from benchmarks.stream_data import StreamData, stream_data
from larder.bench.comparison.data import find_data
from larder.bench.comparison.kept import KeptRounds
from larder.bench.comparison.plan import WARM_UP, Entry
from larder.bench.comparison.runners import PeerRunner
from larder.bench.comparison.session import DataFacts, Means, Session
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.time_budget import TimeBudget
from larder.bench.comparison.work import PRELOADED
from larder.distant.link import Link
from larder.distant.process import open_distant_store
from larder.progress import NullReporter

ROUNDS = int(os.environ.get("LARDER_ROUNDS", "3"))
LATENCIES_MS = (0, 5, 20, 80)
CORES = (1, 2)
BATCH_SIZE = 32
_SECONDS = 600.0
"""Time for the rounds of one link: no limit in practice, and passes that fit in one of `compare --quick`."""
LOCAL = "imagefolder_local"
REMOTE = ("stream", "webdataset", "litdata_streaming", "litdata_raw", "remote_one_sample")
NAMES = {
    LOCAL: "ImageFolder on local disk",
    "stream": "shards, larder.stream",
    "webdataset": "shards, WebDataset",
    "litdata_streaming": "chunks, LitData",
    "litdata_raw": "one object per image, LitData's raw dataset",
    "remote_one_sample": "one object per image, s3fs",
}
_FIGURE = "![Images per second by round-trip time, for three sizes of images, on one core and on two](which-layout.svg)"
PAGE, MARK = "docs/which-layout.md", "<!-- layout_curves: {} -->"


class Size(NamedTuple):
    """Images of one size."""

    side: int
    """Pixels on each side."""
    images: int
    """Of all splits; six in ten are trained on."""
    painted: int
    """How many differ in more than a comment."""


SIZES = {"20 KB": Size(352, 8000, 1000), "70 KB": Size(672, 4000, 500), "300 KB": Size(1400, 1600, 150)}


class Place(NamedTuple):
    """Which images, and on how many cores they are read."""

    size: str
    cores: int


Rates = dict[str, list[list[float]]]
"""By arm: at each latency, the images per second of each round."""


def measure() -> BenchmarkReport:
    """Images of three sizes, at four round-trip times, on one core and two: ImageFolder, and what reads a store."""
    report = BenchmarkReport(f"images per second in passes of 3 s, {ROUNDS} rounds, by layout")
    rates: dict[Place, Rates] = {}
    for size, about in SIZES.items():
        with tempfile.TemporaryDirectory(dir=WORK, prefix="layouts-") as name:
            archive = data.sized_photos(about.images, about.side, about.painted)
            with stream_data(Path(name), archive, ("litdata", "objects")) as found:
                for cores in CORES:
                    print(f"{size}, {cores} cores", flush=True)
                    rates[Place(size, cores)] = _measure_place(found, cores, Path(name), report)
    for place, by_arm in rates.items():
        for arm, at_latencies in by_arm.items():
            for latency, rounds in zip(LATENCIES_MS, at_latencies, strict=False):
                where = "" if arm == LOCAL else f", {latency} ms"
                report.add(f"{place.size}, {place.cores} cores{where}: {arm}", rounds or [0.0], "images/s")
    (ROOT / "docs" / "which-layout.svg").write_text(_draw(rates))
    page = ROOT / PAGE
    page.write_text(with_table(page.read_text(), rates))
    return report


def _measure_place(found: StreamData, cores: int, folder: Path, report: BenchmarkReport) -> Rates:
    """Measure the arms at each latency, and ImageFolder once."""
    clients, servers = _split_cores(cores)
    _pin_threads(found.store.pid, servers)
    flags = [f"--workers={cores}", f"--batch-size={BATCH_SIZE}", "--quick=true", f"--results={folder}"]
    settings = ComparisonSettings.load("bench", flags, found.settings)
    arms = find_data(settings, [LOCAL, *REMOTE], str).arms
    rates: Rates = {arm: [] for arm in arms}
    for latency in LATENCIES_MS:
        with tempfile.TemporaryDirectory(dir=folder, prefix="rounds-") as name, _on_cores(servers):
            link = Link(latency / 1000, None)
            with open_distant_store(settings.s3_endpoint_url, link, Path(name)) as distant, _on_cores(clients):
                behind = settings.model_copy(update={"s3_endpoint_url": distant.endpoint})
                chosen = [arm for arm in arms if arm != LOCAL or latency == LATENCIES_MS[0]]
                session = _run_rounds(behind, chosen, Path(name))
        report.notes += [f"{cores} cores, {latency} ms: {one.arm} failed: {one.message}" for one in session.failures]
        report.rounds += [
            {"cores": cores, "latency_ms": latency} | one.model_dump(mode="json") for one in session.rounds
        ]
        for arm in chosen:
            done = [one for one in session.rounds if one.arm == arm and one.round > WARM_UP]
            rates[arm].append([one.epochs[0].imgs_per_s for one in done])
    return rates


def _run_rounds(settings: ComparisonSettings, arms: Sequence[str], folder: Path) -> Session:
    entries = [Entry("arm", arm, settings.workers) for arm in arms]
    kept = KeptRounds(folder)
    with PeerRunner(folder, _SECONDS, PRELOADED) as runner:
        runner.start()
        means = Means(settings, kept, runner, NullReporter(), TimeBudget(_SECONDS))
        session = Session(means, entries, DataFacts(None, 1.0))
        session.run_rounds(WARM_UP, ROUNDS)
    return session


def _split_cores(cores: int) -> tuple[set[int], set[int]]:
    """Return the cores for the arms, and those for store and link: the others, or all if there are none."""
    every = sorted(os.sched_getaffinity(0))
    return set(every[:cores]), set(every[cores:] or every)


@contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """Start the processes of a block on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _pin_threads(pid: int, cores: set[int]) -> None:
    """Keep a running process on some cores."""
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, cores)


def _medians(at_latencies: Sequence[Sequence[float]]) -> list[float | None]:
    return [statistics.median(rounds) if rounds else None for rounds in at_latencies]


def _draw(rates: Mapping[Place, Rates]) -> str:
    panels = []
    for place, by_arm in rates.items():
        lines = {NAMES[arm]: _medians(by_arm[arm]) for arm in NAMES if arm in by_arm}
        if NAMES[LOCAL] in lines:
            lines[NAMES[LOCAL]] = lines[NAMES[LOCAL]] * len(LATENCIES_MS)  # no round trip reaches a disk
        panels.append(Panel(f"{place.size}, {place.cores} {'core' if place.cores == 1 else 'cores'}", lines))
    values = [f"{latency} ms" for latency in LATENCIES_MS]
    return draw_panels(panels, len(CORES), values, "images per second, by the round-trip time to the store")


def with_table(page: str, rates: Mapping[Place, Rates]) -> str:
    """Return a page with the figure and the measured rates between its marks."""
    begin, end = MARK.format("begin"), MARK.format("end")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{_FIGURE}\n\n{_table(rates)}\n{end}{after}"


def _table(rates: Mapping[Place, Rates]) -> str:
    head = ["images", "cores", "reads", *(f"{latency} ms" for latency in LATENCIES_MS)]
    lines = [" | ".join(head), " | ".join(["---", "---:", "---", *["---:"] * len(LATENCIES_MS)])]
    for place, by_arm in rates.items():
        for arm in (arm for arm in NAMES if arm in by_arm):
            cells = [f"{median:,.0f}" if median else "failed" for median in _medians(by_arm[arm])]
            cells += [""] * (len(LATENCIES_MS) - len(cells))
            lines.append(" | ".join([place.size, str(place.cores), NAMES[arm], *cells]))
    return "\n".join(f"| {line} |" for line in lines)
