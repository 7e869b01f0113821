"""Commands for those who work on larder, and for what it runs on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from larder.cli.app import App
from larder.cli.compose import Compose, Facts, revision_of
from larder.cli.console import say
from larder.cli.environment import has_nvidia_gpu
from larder.cli.host import PYTHON, Host, install
from larder.cli.pipelines import STAGES
from larder.cli.process import Call
from larder.cli.runner import look_for_engine
from larder.cli.settings import shown
from larder.errors import ConfigurationError

Run = Callable[[App, Sequence[str]], None]
_TEST_BYTES = 3 << 30
"""What one process of the tests may need: torch, a Ray cluster, servers."""
TIERS = ("unit", "integration", "containers", "openstack")


def build(app: App, words: Sequence[str]) -> None:
    """Build the images of some stages, or of all."""
    for stage in words or STAGES:
        _require_one_of(STAGES, stage)
        _build(app, stage)


def build_one(stage: str) -> Run:
    """Return the command that builds one stage's image."""
    return lambda app, _: _build(app, stage)


def _build(app: App, stage: str) -> None:
    runner = Compose(
        app.settings.with_runner("compose"), facts=Facts(gpu=has_nvidia_gpu()), revision=revision_of(app.settings)
    )
    call = runner.build(stage)
    at = call.argv.index("build")
    progress = "plain" if app.settings.environ.get("CI") else "auto"
    app.run(replace(call, argv=(*call.argv[:at], "--progress", progress, *call.argv[at:])))


def _require_one_of(names: Sequence[str], word: str) -> None:
    if word not in names:
        raise ConfigurationError(f"there is no stage {shown(word)}", next_step=f"choose from {', '.join(names)}")


def venv(app: App, words: Sequence[str]) -> None:
    """Make `.venv/`: for some stages, or whole, with the tools and torch."""
    for word in words:
        _require_one_of((*STAGES, "provision", "dev"), word)
    if app.dry_run:
        torch = app.settings.given_of("TORCH_INDEX_URL", "TORCH_BACKEND")
        app.print_call(Call(("python3", "-m", "larder", "venv", *words), torch))
    else:
        install(app.settings, words or ("dev",))


def test(app: App, words: Sequence[str]) -> None:
    """Run every tier of tests that this machine can run; REQUIRE=all runs all of them or fails."""
    settings, every = app.settings, app.settings.get("REQUIRE") == "all"
    engine = look_for_engine(settings.environ)
    tiers = ["unit", "integration", *(["containers"] if every or engine.state == "ready" else [])]
    if "containers" in tiers:
        build(app, ())
    else:
        say(f"left out: tests/containers, since {engine.fault}")
    if not every:
        say(f"left out: tests/openstack, which takes a quarter of an hour ({app.name('test-openstack')})")
    venv(app, ())
    app.run(_pytest(app, tiers, settings.get("REQUIRE")))
    if every:
        app.run(_pytest(app, ["openstack"], "all"))


def test_tier(tier: str) -> Run:
    """Return the command that runs one tier."""

    def run(app: App, _: Sequence[str]) -> None:
        venv(app, ())
        app.run(_pytest(app, [tier], "all"))

    return run


def _pytest(app: App, tiers: Sequence[str], require: str) -> Call:
    """Return the call of pytest."""
    settings = app.settings
    processes = settings.get("TEST_PROCESSES", _processes(tiers))
    # The tests of a file of tests/openstack share a machine; all files share the cloud.
    spread: tuple[str, ...] = (settings.get("DIST", "worksteal"),)
    if list(tiers) == ["openstack"]:
        spread = ("loadfile", "--no-loadscope-reorder")
    words = ("-m", "pytest", "--numprocesses", processes, "--dist", *spread)
    try:
        further = shlex.split(settings.get("PYTEST_ARGS"))
    except ValueError as fault:
        raise ConfigurationError(
            f"PYTEST_ARGS can't be split into words: {fault}", next_step="close its quotes"
        ) from None
    return Call((PYTHON, *words, *(f"tests/{tier}" for tier in tiers), *further), {"REQUIRE": require})


def _processes(tiers: Sequence[str]) -> str:
    """Return how many tests run side by side: two per core, since most wait for servers, as far as memory allows.

    Those of tests/openstack have emulated machines, which keep a core busy each.
    """
    if list(tiers) == ["openstack"]:
        return "auto"
    cores = os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return str(max(cores, min(2 * cores, memory_bytes // _TEST_BYTES)))


def lint(app: App, _: Sequence[str]) -> None:
    """Run ruff and mypy, and look whether generated docs are fresh."""
    venv(app, ())
    for words in ((".venv/bin/ruff", "check", "."), (".venv/bin/ruff", "format", "--check", "."), (".venv/bin/mypy",),
                  (PYTHON, "-m", "docs.generate", "--check")):  # fmt: skip
        app.run(Call(words))


def docs(app: App, _: Sequence[str]) -> None:
    """Write what is generated: .env.example, the table of settings."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "docs.generate")))


def benchmarks(app: App, words: Sequence[str]) -> None:
    """Measure the stages against their yardsticks."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "benchmarks", *words)))


def pin_images(app: App, _: Sequence[str]) -> None:
    """Pin the base of the images by the digest that its tag has now."""
    from larder.cli import images  # here, since it takes longer to load than all other commands

    if app.dry_run:
        return app.print_call(Call(("python3", "-m", "larder", "pin-images")))
    say(f"pinned: {images.pin(app.root)}")
    return docs(app, ())


def lock(app: App, _: Sequence[str]) -> None:
    """Renew the lock file."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "larder.cli.lock")))


def provision(app: App, words: Sequence[str]) -> None:
    """Hand the words to `python -m provision`."""
    if app.dry_run:
        app.run(Host(app.settings).prepare(("provision",))[0])
    else:
        install(app.settings, ("provision",))
    here = Path.cwd()  # where the declaration lies
    if here == app.root:
        return app.run(Call((PYTHON, "-m", "provision", *words)))
    env = {"PYTHONPATH": str(app.root)}
    return app.run(Call((str(app.root / PYTHON), "-m", "provision", *words), env, folder=here))
