"""`larder completion`: what shells complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from larder.cli.command import Command
from larder.cli.commands import BY_NAME, COMMANDS
from larder.cli.completion import command_flags, command_settings, script
from larder.cli.main import parse
from larder.cli.setting_specs import all_settings
from tests.unit.cli.engine import ROOT

# Prints what bash would offer for a command line that is split as bash splits it, with "=" as a word of its own.
_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
compopt() { :; }
_larder
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "larder.bash"
    path.write_text(script("bash", COMMANDS))
    return path


def offered(bash_script: Path, *words: str) -> list[str]:
    ended = subprocess.run(
        ["bash", "--norc", "-c", _ASK, "bash", str(bash_script), "larder", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == ""
    return [line for line in ended.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("etl-l",), ["etl-local", "etl-load", "etl-lit"]),
        (("RUN",), ["RUNNER="]),
        (("--dr",), ["--dry-run"]),
        (("RUNNER", "=", "host", "uninst"), ["uninstall"]),
        (("--dry-run", "uninst"), ["uninstall"]),
        (("etl-local", "LARDER_RECI"), ["LARDER_RECIPE="]),
        (("etl-local", "--reci"), ["--recipe"]),
        (("etl-local", "RUNNER", "="), ["compose", "host"]),
        (("etl-local", "RUNNER", "=", "ho"), ["host"]),
        (("etl-local", "LARDER_FORCE", "=", "t"), ["true"]),
        (("etl-local", "LARDER_SOURCE", "=", "pho"), []),
        (("completion", ""), ["bash", "zsh", "fish", "RUNNER=", "--help", "--dry-run", "--yes"]),
        (("build", "ext"), ["extract"]),
        (("no-such-command", ""), []),
    ],
)
def test_bash_completes(bash_script: Path, words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(bash_script, *words) == expected


def test_bash_offers_all_commands_that_help_lists(bash_script: Path) -> None:
    commands = [word for word in offered(bash_script, "") if word in BY_NAME]
    assert commands == [command.name for command in COMMANDS if not command.hidden]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_only_flags_that_are_parsed_are_offered_and_no_secrets(command: Command) -> None:
    for flag in set(command_flags(command)) - {"--help", "--dry-run", "--yes"}:
        [(name, value)] = parse([command.name, f"{flag}=x"], {}).given.items()
        assert value == "x"
        assert not all_settings()[name].secret
    assert len(command_settings(command)) == len(set(command_settings(command)))


def installed(shell: str) -> str:
    """Find a shell. Fail if it is missing and all tests are required."""
    if (program := shutil.which(shell)) is None:
        why = f"{shell} is not installed"
        if os.environ.get("REQUIRE") == "all":
            pytest.fail(why)
        pytest.skip(why)
    return program


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_the_shell_s(shell: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "larder", "completion", shell], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stderr == ""
    program = installed(shell)
    path = tmp_path / "script"
    path.write_text(ended.stdout)
    subprocess.run([program, "-n", path], check=True)


def test_fish_completes(tmp_path: Path) -> None:
    fish = installed("fish")
    path = tmp_path / "larder.fish"
    path.write_text(script("fish", COMMANDS))
    ask = f"source {path}; complete -C 'larder etl-local LARDER_RECI'; complete -C 'larder ray-d'"
    offered = subprocess.check_output([fish, "--no-config", "-c", ask], text=True, env={"HOME": str(tmp_path)})
    assert offered.splitlines() == ["LARDER_RECIPE=", "ray-down\tstop the Ray cluster"]


@pytest.mark.parametrize("words", [(), ("tcsh",), ("bash", "zsh")], ids=["none", "another", "two"])
def test_another_shell_is_refused_in_two_lines(words: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "larder", "completion", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 2
    assert "larder completion bash|zsh|fish" in ended.stderr


def recorded_server(folder: Path, name: str) -> None:
    """Record a server's host key as `provision` does."""
    state = folder / ".larder" / "provision" / name
    state.mkdir(parents=True)
    (state / "known_hosts").write_text("")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--o",), ["--on"]),
        (("--on", ""), ["block-ab1", "object-ab1"]),
        (("--on", "bl"), ["block-ab1"]),
        (("--on", "=", "ob"), ["object-ab1"]),
        (("--on", "block-ab1", "etl-l"), ["etl-local", "etl-load", "etl-lit"]),
        (("--on", "block-ab1", "etl-local", "--reci"), ["--recipe"]),
        (("etl-local", "--on", ""), []),
    ],
)
def test_bash_completes_servers(
    bash_script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: list[str]
) -> None:
    for name in ("block-ab1", "object-ab1"):
        recorded_server(tmp_path, name)
    (tmp_path / ".larder/provision/never-met").mkdir()
    monkeypatch.chdir(tmp_path)
    answer = offered(bash_script, *words)
    assert (answer == expected) if expected else not set(answer) & {"block-ab1", "object-ab1"}


def test_fish_completes_servers(tmp_path: Path) -> None:
    fish = installed("fish")
    path = tmp_path / "larder.fish"
    path.write_text(script("fish", COMMANDS))
    recorded_server(tmp_path, "block-ab1")
    ask = f"source {path}; complete -C 'larder --on b'; complete -C 'larder --on block-ab1 ray-d'"
    said = subprocess.check_output(
        [fish, "--no-config", "-c", ask], text=True, cwd=tmp_path, env={"HOME": str(tmp_path)}
    )
    assert said.splitlines() == ["block-ab1", "ray-down\tstop the Ray cluster"]
