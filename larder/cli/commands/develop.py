"""Commands for developers of larder, and for the cloud resources that it runs on."""

from __future__ import annotations

import difflib
import os
import runpy
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from larder.cli import provision as in_container
from larder.cli.app import App
from larder.cli.compose import ComposeRunner, Facts, revision_of
from larder.cli.console import print_message
from larder.cli.host import PYTHON, HostRunner, install
from larder.cli.pipelines import STAGES
from larder.cli.process import Call
from larder.cli.runner import detect_container_engine
from larder.cli.setting_specs import PYTHONS
from larder.cli.setting_values import printable
from larder.cli.virtualenv import ensure_for_python, has_nvidia_gpu
from larder.errors import ConfigurationError

CommandFunction = Callable[[App, Sequence[str]], None]
_TEST_BYTES = 3 << 30
"""Memory that one test process may need: torch, a Ray cluster, servers."""
TIERS = ("unit", "integration", "containers", "openstack")
_SHELL_TESTS = ("bad_input", "doctor", "images", "payloads", "project", "signals", "status", "store", "uninstall")
_OTHER_PYTHON_ARGUMENTS = (
    "tests/unit",
    *(f"--ignore=tests/unit/cli/test_{name}.py" for name in _SHELL_TESTS),
    "--ignore=tests/unit/larder/test_fuzz.py",
    "tests/integration/extract/test_sources.py",
    "tests/integration/transform/test_rejects.py",
    "tests/integration/packing/test_packs.py",
    "-k",
    "not optimize and not datapipes",
    "--without",
    "torch",
    "--without",
    "torchvision",
    "-W",
    "error:functools.partial:FutureWarning",
)
"""Arguments for pytest: unit tests (except those that mostly start processes) and file stages, all without torch."""


def build(app: App, words: Sequence[str]) -> None:
    """Build the images of some stages, or of all."""
    for stage in words or STAGES:
        _require_one_of(STAGES, stage)
        _build(app, stage)


def build_one(stage: str) -> CommandFunction:
    """Return the command that builds one stage's image."""
    return lambda app, _: _build(app, stage)


def _build(app: App, stage: str) -> None:
    runner = ComposeRunner(
        app.settings.with_runner("compose"), facts=Facts(gpu=has_nvidia_gpu()), revision=revision_of(app.settings)
    )
    call = runner.build(stage)
    at = call.argv.index("build")
    progress = "plain" if app.settings.environ.get("CI") else "auto"
    app.run(replace(call, argv=(*call.argv[:at], "--progress", progress, *call.argv[at:])))


def _require_one_of(names: Sequence[str], word: str, kind: str = "stage") -> None:
    if word not in names:
        near = difflib.get_close_matches(word, names, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(
            f"there is no {kind} {printable(word)}{meant}", next_step=f"choose from {', '.join(names)}"
        )


def venv(app: App, words: Sequence[str]) -> None:
    """Create `.venv/` with the packages of some stages, or all packages; for a version of Python, `.venv-3.13/`."""
    for word in words:
        _require_one_of((*STAGES, "provision", "dev", *PYTHONS), word)
    if app.dry_run:
        torch = app.settings.given_of("TORCH_INDEX_URL", "TORCH_BACKEND")
        app.print_call(Call(("python3", "-m", "larder", "venv", *words), torch))
        return
    stages = [word for word in words if word not in PYTHONS]
    if stages or not words:
        install(app.settings, stages or ("dev",))
    for version in [word for word in words if word in PYTHONS]:
        install(app.settings, ("uv",))
        ensure_for_python(app.root, version, app.settings.environ)


def test(app: App, words: Sequence[str]) -> None:
    """Run every tier of tests that this machine can run; REQUIRE=all runs all of them or fails."""
    settings, all_tiers = app.settings, app.settings.get("REQUIRE") == "all"
    engine = detect_container_engine(settings.environ)
    tiers = ["unit", "integration", *(["containers"] if all_tiers or engine.state == "ready" else [])]
    if "containers" in tiers:
        build(app, ())
    else:
        print_message(f"left out: tests/containers, since {engine.fault}")
    if not all_tiers:
        print_message(f"left out: tests/openstack, which takes half an hour ({app.typed_command('test-openstack')})")
        print_message(f"left out: another Python ({app.typed_command('test-python')})")
    venv(app, ())
    app.run(_pytest(app, tiers, settings.get("REQUIRE")))
    if all_tiers:
        test_python(app, ())
        app.run(_pytest(app, ["openstack"], "all"))


def test_tier(tier: str) -> CommandFunction:
    """Return the command that runs one tier of tests."""

    def run(app: App, _: Sequence[str]) -> None:
        venv(app, ())
        app.run(_pytest(app, [tier], "all"))

    return run


def test_python(app: App, _: Sequence[str]) -> None:
    """Run the tests that need no torch with another Python: most unit tests, and some of stages."""
    version = app.settings.get("TEST_PYTHON", "3.13")
    venv(app, (version,))
    call = _pytest(app, [], "")
    app.run(replace(call, argv=(f".venv-{version}/bin/python", *call.argv[1:], *_OTHER_PYTHON_ARGUMENTS)))


def _pytest(app: App, tiers: Sequence[str], require: str) -> Call:
    """Return the call of pytest."""
    settings = app.settings
    processes = settings.get("TEST_PROCESSES", _processes(tiers))
    spread: tuple[str, ...] = (settings.get("DIST", "worksteal"),)
    if list(tiers) == ["openstack"]:
        spread = ("load", "--maxschedchunk=1")  # in the order of tests/openstack/conftest.py: the longest first
    words = ("-m", "pytest", "--numprocesses", processes, "--dist", *spread)
    try:
        extra = shlex.split(settings.get("PYTEST_ARGS"))
    except ValueError as fault:
        raise ConfigurationError(
            f"PYTEST_ARGS can't be split into words: {fault}", next_step="close its quotes"
        ) from None
    # Its processes share compiled files, though this one may write none.
    return Call(
        (PYTHON, *words, *(f"tests/{tier}" for tier in tiers), *extra),
        {"REQUIRE": require, "PYTHONDONTWRITEBYTECODE": ""},
    )


def _processes(tiers: Sequence[str]) -> str:
    """Return the number of parallel tests: two per core, since most wait for servers, as far as memory allows.

    Tests in tests/openstack are three per two cores: some emulate a machine, which keeps a core busy.
    """
    cores = os.cpu_count() or 1
    if list(tiers) == ["openstack"]:
        return str(max(2, cores * 3 // 2))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return str(max(cores, min(2 * cores, memory_bytes // _TEST_BYTES)))


def lint(app: App, _: Sequence[str]) -> None:
    """Run ruff and mypy, and check that generated docs are fresh."""
    venv(app, ())
    for words in (
        (".venv/bin/ruff", "check", "."),
        (".venv/bin/ruff", "format", "--check", "."),
        (".venv/bin/mypy",),
        (PYTHON, "-m", "docs.generate", "--check"),
    ):
        app.run(Call(words))


def docs(app: App, _: Sequence[str]) -> None:
    """Write the generated docs: .env.example, the table of settings."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "docs.generate")))


def docs_site(app: App, _: Sequence[str]) -> None:
    """Build the documentation site, and print its address."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "docs.site")))


def benchmarks(app: App, words: Sequence[str]) -> None:
    """Compare the speed of the stages with that of other tools."""
    names = runpy.run_path(str(app.root / "benchmarks" / "names.py"))["NAMES"]
    for word in words:
        _require_one_of(names, word, "benchmark")
    venv(app, ())
    app.run(Call((PYTHON, "-m", "benchmarks", *words)))


def pin_images(app: App, _: Sequence[str]) -> None:
    """Pin the base of the images by the current digest of its tag."""
    from larder.cli import base_image  # imported here, since it loads more slowly than all other commands

    if app.dry_run:
        return app.print_call(Call(("python3", "-m", "larder", "pin-images")))
    print_message(f"pinned: {base_image.pin_base_image(app.root)}")
    return docs(app, ())


def lock(app: App, _: Sequence[str]) -> None:
    """Renew the lock file."""
    venv(app, ())
    app.run(Call((PYTHON, "-m", "larder.cli.lock")))


def provision(app: App, words: Sequence[str]) -> None:
    """Run `python -m provision` with the given words, in a container if no Python here is new enough for it."""
    if in_container.needs_container(app.settings):
        app.run(in_container.build_call(app.settings))
        if not app.dry_run:
            in_container.write_passwd(app.root, app.environ)
        return app.run(in_container.run_call(app.root, Path.cwd(), words, app.environ))
    if app.dry_run:
        app.run(HostRunner(app.settings).prepare(("provision",))[0])
    else:
        install(app.settings, ("provision",))
    here = Path.cwd()  # contains the declaration
    if here == app.root:
        return app.run(Call((PYTHON, "-m", "provision", *words)))
    env = {"PYTHONPATH": str(app.root)}
    return app.run(Call((str(app.root / PYTHON), "-m", "provision", *words), env, folder=here))
