"""Commands that run stages: the pipelines, verify, bench and train."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from larder.cli.app import App
from larder.cli.console import print_result
from larder.cli.pipelines import PIPELINES

CommandFunction = Callable[[App, Sequence[str]], None]


def pipeline(name: str) -> CommandFunction:
    """Return the command that runs one of PIPELINES."""

    def run(app: App, _: Sequence[str]) -> None:
        app.run_steps(PIPELINES[name])

    return run


def demo(app: App, words: Sequence[str]) -> None:
    """Run generated images through the local pipeline and measure them, in a separate volume."""
    source = app.settings.given.get("LARDER_SOURCE") or app.settings.environ.get("LARDER_SOURCE") or "sample"
    demo = app.with_given(LARDER_SOURCE=source, LARDER_DATA_VOLUME=app.settings.demo_volume)
    demo.run_steps(PIPELINES["etl-local"])
    bench(demo, words)
    demo.finish()
    if not app.dry_run:
        print_result(f"The records are in {os.path.realpath(app.root / app.settings.results)}/")


def verify(app: App, _: Sequence[str]) -> None:
    """Verify the chain from archive to object."""
    app.run_steps(PIPELINES["verify"])


def bench(app: App, _: Sequence[str]) -> None:
    """Measure the arm."""
    measure(app, "bench")


def train(app: App, _: Sequence[str]) -> None:
    """Train through the arm."""
    measure(app, "train")


def measure(app: App, name: str) -> None:
    """Run bench, after creating the folders that it needs."""
    arm = app.settings.arm  # report a wrong arm before downloading torch
    app.prepare("bench")
    settings = app.settings
    app.make_folders(settings.results, settings.mount_dir, settings.cache_dir)
    app.run_steps(PIPELINES[name], ("--arm", arm), prepare=False)
