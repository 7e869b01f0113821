"""Commands that run stages: the pipelines, verify, bench and train."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from larder.cli.app import App
from larder.cli.console import tell
from larder.cli.pipelines import PIPELINES

Run = Callable[[App, Sequence[str]], None]


def pipeline(name: str) -> Run:
    """Return the command that runs a pipeline of the table."""

    def run(app: App, _: Sequence[str]) -> None:
        app.steps(PIPELINES[name])

    return run


def demo(app: App, words: Sequence[str]) -> None:
    """Take generated images through the local pipeline and measure them, in a volume of their own."""
    source = app.settings.given.get("LARDER_SOURCE") or app.settings.environ.get("LARDER_SOURCE") or "sample"
    demo = app.change(LARDER_SOURCE=source, LARDER_DATA_VOLUME=app.settings.demo_volume)
    demo.steps(PIPELINES["etl-local"])
    bench(demo, words)
    demo.finish()
    if not app.dry_run:
        tell(f"The records lie in {os.path.realpath(app.root / app.settings.results)}/")


def verify(app: App, _: Sequence[str]) -> None:
    """Follow the chain from archive to object."""
    app.steps(PIPELINES["verify"])


def bench(app: App, _: Sequence[str]) -> None:
    """Measure the arm."""
    measure(app, "bench")


def train(app: App, _: Sequence[str]) -> None:
    """Train through the arm."""
    measure(app, "train")


def measure(app: App, name: str) -> None:
    """Run bench, with the folders it needs."""
    arm = app.settings.arm  # a mistake shows before torch is fetched
    app.prepare("bench")
    settings = app.settings
    app.make_folders(settings.results, settings.mount_dir, settings.cache_dir)
    app.steps(PIPELINES[name], ("--arm", arm), prepare=False)
