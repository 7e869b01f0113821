"""Trains a small network through an arm, on the arm's own split, and scores it on the held-out split."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.bench import provenance
from larder.bench.record import describe
from larder.bench.results import reserve
from larder.bench.training import Training, make_record, render
from larder.errors import ConfigurationError
from larder.loaders.loader import Loader
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.stage import Outcome
from larder.terminal import Lines, as_json, say
from services.bench.arm import open_arm
from services.bench.settings import BenchSettings


def train(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Train through `settings.arm`; the record goes to `<results>/train-<arm>-<UTC time>.json` and to stdout."""
    if settings.split == settings.held_out:
        raise ConfigurationError(
            f"LARDER_HELD_OUT={settings.held_out}: a network that was trained on a split can't be judged by it",
            next_step="set LARDER_HELD_OUT or FOOD11_SPLIT to another split",
        )
    started = datetime.now(UTC)
    origin = provenance.collect(started, settings.revision)
    with reserve(settings.results, f"train-{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as place:
        with open_arm(settings, reporter) as feed:
            _require_held_out(settings, feed.loader)
            network = Training(len(feed.loader.classes), seed=settings.seed, device=settings.device)
            epochs = [network.train(feed.loader, number, reporter) for number in range(1, settings.epochs + 1)]
            described = describe(feed.loader, settings.for_record())
        with open_arm(settings.model_copy(update={"split": settings.held_out}), reporter) as feed:
            accuracy = network.accuracy(feed.loader, reporter)
        record = make_record(settings.arm, epochs, accuracy, network.device) | described | {"provenance": origin}
        place.write(record)
    say(Lines(as_json(record)) if reporter.json else render(record))
    return Outcome(
        f"{settings.arm}: {accuracy:.1%} of {settings.held_out} right after {amount(len(epochs), 'epochs')}; "
        f"{record['wait_share']:.0%} of the time spent waiting for data; record {place.path.name}",
        f"{Run('bench', 'train')} with another LARDER_ARM, to see what feeding changes",
        {"accuracy": accuracy, "wait_share": record["wait_share"], "record": str(place.path)},
    )


def _require_held_out(settings: BenchSettings, loader: Loader) -> None:
    """Raises ConfigurationError without the split that is scored on: before the training, not after it."""
    if not loader.manifest.splits.get(settings.held_out):
        raise ConfigurationError(
            f"LARDER_HELD_OUT={settings.held_out!r}: the data have no such split",
            next_step=f"set it to one of: {', '.join(sorted(set(loader.manifest.splits) - {settings.split}))}",
        )
