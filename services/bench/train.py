"""Train a small network through an arm on the arm's split, and score it on the held-out split."""

from __future__ import annotations

from datetime import UTC, datetime

from larder.bench import provenance
from larder.bench.open_arm import open_arm
from larder.bench.record_folder import reserve
from larder.bench.run_record import describe
from larder.bench.training import Training, make_training_record, render_training
from larder.errors import ConfigurationError
from larder.loaders.loader import Loader
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.stage import StageOutcome
from larder.terminal import Lines, as_json, print_escaped
from services.bench.settings import BenchSettings


def train(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Train through `settings.arm`, and write the record to `<results>/train-<arm>-<UTC time>.json` and to stdout."""
    if settings.split == settings.held_out:
        raise ConfigurationError(
            f"LARDER_HELD_OUT={settings.held_out}: a network that was trained on a split can't be judged by it",
            next_step="set LARDER_HELD_OUT or FOOD11_SPLIT to another split",
        )
    started = datetime.now(UTC)
    origin = provenance.collect(started, settings.revision, settings.s3_endpoint_url)
    with reserve(settings.results, f"train-{settings.arm}-{started:%Y%m%dT%H%M%SZ}") as record_file:
        with open_arm(settings.arm, settings, reporter) as measured:
            _require_held_out(settings, measured.loader)
            network = Training(len(measured.loader.classes), seed=settings.seed, device=settings.device)
            epochs = [network.train(measured.loader, number, reporter) for number in range(1, settings.epochs + 1)]
            described = describe(measured.loader, settings.for_record())
        with open_arm(settings.arm, settings.model_copy(update={"split": settings.held_out}), reporter) as measured:
            accuracy = network.accuracy(measured.loader, reporter)
        record = (
            make_training_record(settings.arm, epochs, accuracy, network.device) | described | {"provenance": origin}
        )
        record_file.write(record)
    print_escaped(Lines(as_json(record)) if reporter.json else render_training(record))
    return StageOutcome(
        f"{settings.arm}: {accuracy:.1%} of {settings.held_out} right after {format_amount(len(epochs), 'epochs')}; "
        f"{record['wait_share']:.0%} of the time spent waiting for data; record {record_file.path.name}",
        f"{StageRun('bench', 'train')} with another LARDER_ARM, to compare the time spent waiting",
        {"accuracy": accuracy, "wait_share": record["wait_share"], "record": str(record_file.path)},
    )


def _require_held_out(settings: BenchSettings, loader: Loader) -> None:
    """Raise ConfigurationError if the held-out split is missing, before training starts."""
    if not loader.manifest.splits.get(settings.held_out):
        raise ConfigurationError(
            f"LARDER_HELD_OUT={settings.held_out!r}: the data have no such split",
            next_step=f"set it to one of: {', '.join(sorted(set(loader.manifest.splits) - {settings.split}))}",
        )
