"""Commands that run stages: the pipelines, verify, bench, compare, peers and train."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from larder.cli.app import App
from larder.cli.console import print_result
from larder.cli.pipelines import PIPELINES
from larder.cli.process import Call
from larder.cli.store_check import require_store_for
from larder.errors import ConfigurationError

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


def compare(app: App, words: Sequence[str]) -> None:
    """Compare arms over the dataset, or over the shards that a word names. Without a checkout, run in this Python."""
    if len(words) > 1:
        raise ConfigurationError(
            f"compare takes one folder of shards, and not {len(words)}", next_step="give one, as s3://bucket/shards"
        )
    flags = ("--shards", words[0]) if words else ()
    app.settings.require_known_arms()
    if app.has_checkout:
        require_store_for(app, "compare", *words)
        _run_measuring(app, "compare", flags)
    else:
        app.run(_installed_compare(app, flags))


def merge_records(app: App, names: Sequence[str]) -> None:
    """Let compare write the rounds of several records as one record. Its tables go to stderr."""
    flags = ("--records", ",".join(names))
    if app.has_checkout:
        app.prepare("bench")
        app.make_folders(app.settings.results)
        [step] = PIPELINES["compare"]
        call = app.runner.command(step, flags)
    else:
        call = _installed_compare(app, flags)
    app.run(call.redirected_to_stderr())


def _installed_compare(app: App, flags: Sequence[str]) -> Call:
    """Return the call that compares in this Python."""
    of_report = ("RECORD", "AGAINST")
    given = {name: value for name, value in app.settings.given.items() if value and name not in of_report}
    return Call((sys.executable, "-m", "larder.bench.comparison", *flags), env=given)


def peers(app: App, _: Sequence[str]) -> None:
    """Prepare the arm of another library. Without a checkout, run in this Python."""
    if app.has_checkout:
        measure(app, "peers")
    else:
        given = {name: value for name, value in app.settings.given.items() if value}
        app.run(Call((sys.executable, "-m", "larder.bench.prepare_peer", "--arm", app.settings.arm), env=given))


def train(app: App, _: Sequence[str]) -> None:
    """Train through the arm."""
    measure(app, "train")


def measure(app: App, name: str) -> None:
    """Run bench for one arm."""
    require_store_for(app, name)
    _run_measuring(app, name, ("--arm", app.settings.arm))


def _run_measuring(app: App, name: str, flags: Sequence[str]) -> None:
    """Run bench, after creating the folders that it needs."""
    app.prepare("bench")
    settings = app.settings
    app.make_folders(settings.results, settings.mount_dir, settings.cache_dir)
    app.run_steps(PIPELINES[name], flags, prepare=False)
