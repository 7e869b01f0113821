"""Neither make nor a shell nor compose interprets a value: it arrives unchanged, or is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from larder.cli import dotenv
from larder.cli.compose import ComposeRunner
from larder.cli.host import HostRunner
from larder.cli.main import parse
from larder.cli.pipelines import PIPELINES
from larder.cli.process import environment
from larder.cli.resolve import resolve
from larder.cli.setting_specs import COMMAND_ARGUMENTS, SECRETS, all_settings
from larder.errors import ConfigurationError
from tests.unit.cli.conftest import Ended, FrontDoor

PAYLOADS = {
    "substitution": "$(touch {x})",
    "backticks": "`touch {x}`",
    "make-function": "$(shell touch {x})",
    "make-recursion": "$(eval $(shell touch {x}))",
    "semicolon": ";touch {x};",
    "pipe": "|touch {x}",
    "double-quote": '";touch {x};"',
    "single-quote": "';touch {x};'",
    "backslash": "a\\ b\\\\c\\",
    "newline": "a\ntouch {x}\n",
    "dash": "-rf",
    "flag": "--help",
    "format": "%s%n%(name)s",
    "braces": "${{HOME}}${{X:-y}}",
    "dollars": "$$ $HOME $1 $",
    "make-variables": "$(MAKE) $@ $<",
    "not-ascii": "fotos ä 写真 🥫",
    "no-utf-8": "\udcff\udcfe",
    "blanks": "  a\tb  ",
    "glob": "*?[a]~",
    "equals": "a=b OTHER=c",
    "hash": "a # b",
}
WORD_NAMES = {setting.name for setting in COMMAND_ARGUMENTS} | {"RUNNER"}
CHECKED = {
    "LARDER_DATA_VOLUME",
    "LARDER_WDS_VOLUME",
    "LARDER_LIT_VOLUME",
    "LARDER_UID",
    "LARDER_GID",
    "LARDER_MINIO_PORT",
    "COMPOSE_PROJECT_NAME",
    "LARDER_DATASET",
    "LARDER_RAY_STAGE",
    "LARDER_MEMORY",
    "LARDER_PIDS",
    "LARDER_TMP_SIZE",
    "LARDER_SHM_SIZE",
    "LARDER_S3_LATENCY",
    "LARDER_S3_BANDWIDTH",
    "LARDER_LINK_LATENCY",
    "LARDER_LINK_BANDWIDTH",
    *(setting.name for setting in all_settings().values() if setting.choices or setting.type),
}
"""What the front door checks by itself, since it makes names of it, or knows all that it may be."""
PLACES = {
    "LARDER_HOME",
    "LARDER_RESULTS",
    "LARDER_WORKSPACE",
    "LARDER_MOUNT_DIR",
    "LARDER_CACHE_DIR",
    "LARDER_STORE_DIR",
    "FOOD11_DATA_DIR",
    "LARDER_SOURCE",
    "LARDER_INPUT",
}
"""What is made absolute, or handed to a container by another name."""
SET_BY_RUNNER = {"LARDER_VOLUME_DIR", "LARDER_WDS_DIR", "LARDER_LIT_DIR"}
FREE = sorted({*all_settings()} - WORD_NAMES - CHECKED - PLACES - SET_BY_RUNNER)
WAYS = ("make", "words", "environment", ".env")


def payload(kind: str, mark: Path) -> str:
    return PAYLOADS[kind].format(x=mark)


def mixed(turn: int, mark: Path) -> dict[str, str]:
    """Return every free setting with a payload; each turn has different ones."""
    kinds = [kind for kind in PAYLOADS if kind != "no-utf-8"]
    return {name: payload(kinds[(at + turn) % len(kinds)], mark) for at, name in enumerate(FREE)}


def dotenv_of(values: Mapping[str, str]) -> str:
    """Write values by compose's rules."""

    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")

    return "".join(f'{name}="{quoted(value)}"\n' for name, value in values.items())


def give(door: FrontDoor, way: str, values: Mapping[str, str], command: str, runner: str) -> Ended:
    """Pass settings to a command in one of several ways."""
    words = [f"{name}={value}" for name, value in values.items()]
    if way == "make":
        return door.run(command, f"RUNNER={runner}", *words, through=("make",))
    if way == "words":
        return door.run(command, f"RUNNER={runner}", *words)
    if way == "environment":
        return door.run(command, f"RUNNER={runner}", environ=values)
    (door.root / ".env").write_text(dotenv_of(values))
    return door.run(command, f"RUNNER={runner}")


@pytest.mark.parametrize("kind", [kind for kind, text in PAYLOADS.items() if "{x}" in text])
def test_a_targets_name(door: FrontDoor, tmp_path: Path, kind: str) -> None:
    ended = door.run(payload(kind, tmp_path / "executed"), through=("make",))
    assert ended.code == 2
    assert not (tmp_path / "executed").exists()
    assert not ended.calls


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("way", WAYS)
def test_every_setting_with_every_payload(tmp_path: Path, way: str, kind: str) -> None:
    """The processes to start, as a pure function of the input."""
    values = {name: payload(kind, tmp_path / "executed") for name in FREE}
    given = parse(["verify", *(f"{name}={value}" for name, value in values.items())], {}).given
    environ: dict[str, str] = {"PATH": "/usr/bin"}
    files: tuple[Path, ...] = ()
    if way == "environment":
        given, environ = {}, {**environ, **values}
    elif way == ".env":
        if kind == "no-utf-8":
            return
        (tmp_path / ".env").write_text(dotenv_of(values))
        given, files = {}, (tmp_path / ".env",)
    elif way == "make":
        flags = " ".join(f"{name}={for_make(value)}" for name, value in values.items())
        given = parse(["verify"], {"MAKEFLAGS": f" -- {flags}"}, "make").given
    settings = resolve(tmp_path, given, environ, tmp_path)
    for runner in (HostRunner(settings), ComposeRunner(settings)):
        for step in PIPELINES["verify"] + PIPELINES["etl-load"]:
            call = runner.command(step)
            seen = environment(call, environ, dotenv.read(files, environ))
            for name, value in values.items():
                assert seen.get(name) == value or (isinstance(runner, ComposeRunner) and way == ".env"), name
            assert not any(values["S3_PREFIX"] in word for word in call.argv)


def for_make(value: str) -> str:
    """Return a value as make writes it into MAKEFLAGS."""
    return re.sub(r"([\\ \t])", r"\\\1", value).replace("$", "$$")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("runner", ["host", "compose"])
@pytest.mark.parametrize("way", WAYS)
def test_values_reach_the_process_as_they_were_given(door: FrontDoor, tmp_path: Path, way: str, runner: str) -> None:
    mark = tmp_path / "executed"
    for turn in range(0, len(PAYLOADS), 6):
        values = mixed(turn, mark)
        ended = give(door, way, values, "etl-load", runner)
        assert ended.code == 0, ended.err
        last = ended.stages[-1]
        if way == "make":
            values = {name: value.lstrip(" \t") for name, value in values.items()}  # make drops them
        if runner == "compose" and way == ".env":
            assert last["argv"][2:4] == ["--env-file", ".env"]
        else:
            assert {name: last["env"].get(name) for name in FREE} == values
        assert not any(word.startswith(("-rf", "--help")) or str(mark) in word for word in last["argv"])
    assert not mark.exists()


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_what_names_are_made_of_is_refused(tmp_path: Path, name: str) -> None:
    for kind in PAYLOADS:
        with pytest.raises(ConfigurationError, match=name):
            resolve(tmp_path, {name: payload(kind, tmp_path)}, {}, tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_value_starts_nothing(door: FrontDoor, tmp_path: Path, way: str) -> None:
    mark = tmp_path / "executed"
    values = {
        name: payload("make-function", mark) + payload("backticks", mark) for name in sorted(CHECKED - {"RUNNER"})
    }
    ended = give(door, way, values, "bench", "compose")
    assert ended.code == 2
    ids = {"LARDER_UID", "LARDER_GID"} if way == ".env" else set()  # which the environment sets, too
    for name in values.keys() - ids:
        assert name in ended.err
    assert "Traceback" not in ended.err
    assert not ended.calls
    assert not mark.exists()


@pytest.mark.parametrize("command", ["bench", "jupyter", "mount", "s3-up", "clean-local"])
def test_places_arrive_as_they_were_given(door: FrontDoor, tmp_path: Path, command: str) -> None:
    mark = tmp_path / "executed"
    awkward = ("-rf $(touch x)", 'it\'s `touch x` "1"\n2', "--help ä\\ %s")
    values = {name: awkward[at % 3] for at, name in enumerate(sorted(PLACES - {"LARDER_SOURCE"}))}
    ended = give(door, "words", {**values, "YES": "1", "S3_BUCKET": "photos"}, command, "host")
    assert ended.code == 0, ended.err
    last = [call for call in ended.stages if call["argv"][1] == "-m"][-1:]
    for call in last:
        for name in {"LARDER_RESULTS", "LARDER_MOUNT_DIR", "LARDER_WORKSPACE", "LARDER_STORE_DIR"} & {*call["env"]}:
            assert os.path.normpath(call["env"][name]) == os.path.normpath(values[name])
    assert not mark.exists()
    assert not (door.root / "x").exists()
    assert not (door.root / "-rf").exists()


FILES = [
    "my photos.zip",
    "it's.zip",
    'a "b".zip',
    "-rf.zip",
    "a$(touch x)`touch x`.zip",
    "a\nb.zip",
    "ä 写真.zip",
    "a;b&c|d.zip",
    "$HOME.zip",
    "a\\b.zip",
    "%s.zip",
    "a#b.zip",
    "~.zip",
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", FILES, ids=ascii)
def test_a_file_of_any_name_is_the_source(awkward_door: FrontDoor, name: str) -> None:
    door = awkward_door
    way = WAYS[FILES.index(name) % len(WAYS)]
    (door.root / name).write_bytes(b"an archive")
    ended = give(door, way, {"LARDER_SOURCE": name}, "etl-local", "compose")
    assert ended.code == 0, ended.err
    [call] = [call for call in ended.stages if "extract" in call["argv"] and "run" in call["argv"]]
    mount = call["argv"][call["argv"].index("-v") + 1]
    host, inside, mode = mount.split(":")
    assert (host, mode) == (str(door.root.resolve() / name), "ro")
    assert f"LARDER_SOURCE={inside}" in call["argv"]
    assert inside.endswith(".zip")
    ended = give(door, way, {"LARDER_SOURCE": name}, "etl-local", "host")
    [call] = [call for call in ended.stages if "services.extract" in call["argv"]]
    assert call["env"]["LARDER_SOURCE"] == name
    assert not (door.root / "x").exists()


def test_a_file_with_a_colon_cannot_be_mounted(door: FrontDoor) -> None:
    (door.root / "a:b.zip").write_bytes(b"an archive")
    ended = door.run("etl-local", "RUNNER=compose", "LARDER_SOURCE=a:b.zip")
    assert ended.code == 2
    assert "can't mount a path with a colon" in ended.err
    assert "RUNNER=host" in ended.err
    assert not ended.stages


def test_a_source_is_relative_to_where_the_user_is(door: FrontDoor) -> None:
    elsewhere = door.machine / "home"
    (elsewhere / "photos.zip").write_bytes(b"an archive")
    ended = door.run("etl-local", "RUNNER=host", "LARDER_SOURCE=photos.zip", cwd=elsewhere, PYTHONPATH=str(door.root))
    [call] = [call for call in ended.stages if "services.extract" in call["argv"]]
    assert call["env"]["LARDER_SOURCE"] == str(elsewhere / "photos.zip")
    assert call["cwd"] == str(door.root)


PASTED = [
    ("etl-local", "LARDER_SOURCE=sample"),
    ("etl-local", "LARDER_SOURCE=it's $(touch x) `y`.zip"),
    ("etl-load",),
    ("etl-wds",),
    ("etl-lit",),
    ("verify",),
    ("bench", "ARM=webdataset"),
    ("train",),
    ("s3-check",),
    ("s3-bucket",),
    ("unmount",),
    ("demo",),
    ("ray-up",),
    ("ray-down",),
    ("jupyter-down",),
    ("clean-wds", "YES=1"),
    ("s3-down",),
    ("etl-wds", "LARDER_DATASET=photos", 'S3_PREFIX=it\'s "$HOME"\n2'),
]


@pytest.mark.one_in(6)
@pytest.mark.parametrize("runner", ["compose", "host"])
@pytest.mark.parametrize("words", PASTED, ids=" ".join)
def test_a_dry_run_pasted_does_the_same(awkward_door: FrontDoor, runner: str, words: tuple[str, ...]) -> None:
    door = awkward_door
    (door.root / "it's $(touch x) `y`.zip").write_bytes(b"an archive")
    (door.root / ".env").write_text("S3_BUCKET='it is $mine'\nexport LARDER_WORKERS=3\n")
    home = door.root / ".larder"
    home.mkdir()
    (home / f"s3-{runner}.env").write_text("S3_ENDPOINT_URL=http://127.0.0.1:8333\n")
    staged = home / "volumes/food11-webdataset_wds_out/Food-11-webdataset"  # clean-wds looks for it, and removes it
    empty = {"LARDER_SEED": "", "LARDER_WORKERS": ""}
    dry = door.run(*words, f"RUNNER={runner}", "--dry-run", environ=empty)
    assert dry.code == 0, dry.err
    assert not [call for call in dry.stages if {"run", "up", "build", "-m"} & {*call["argv"]}]
    staged.mkdir(parents=True)
    pasted = door.run("-c", dry.out, through=("bash",), environ=empty)
    assert pasted.code == 0, pasted.err
    staged.mkdir(parents=True, exist_ok=True)
    real = door.run(*words, f"RUNNER={runner}", environ=empty)
    assert real.code == 0, real.err
    assert starts(pasted) == starts(real)
    assert not (door.root / "x").exists()


PASSED_ON = ("LARDER_FRONT_DOOR", "LARDER_REPEATED", "LARDER_HOST_FOLDERS")
"""What `larder` tells stages for their messages."""


def starts(ended: Ended) -> list[tuple[list[str], dict[str, str]]]:
    """Return what was started: arguments without the run's label, and the settings in the environment."""
    left = []
    for call in ended.stages:
        argv = list(call["argv"])
        if "--label" in argv:
            del argv[argv.index("--label") : argv.index("--label") + 2]
        if not {"run", "up", "build", "-m", "rm", "down"} & {*argv} or "larder" in argv:
            continue
        env = {
            name: value
            for name, value in call["env"].items()
            if name not in ("COMPOSE_IGNORE_ORPHANS", *PASSED_ON, "_", "OLDPWD", "PWD", "SHLVL")
        }
        left.append((argv, env))
    return left


def test_a_dry_run_shows_no_secret(door: FrontDoor) -> None:
    secrets = {name: f"the-{name}-itself" for name in SECRETS}
    (door.root / ".env").write_text("S3_ENDPOINT_URL=http://localhost\n")
    for runner in ("host", "compose"):
        for command in ("etl-load", "s3-check", "bench", "mount"):
            words = [f"{name}={value}" for name, value in secrets.items()]
            ended = door.run(command, f"RUNNER={runner}", "--dry-run", *words)
            assert ended.code == 0, ended.err
            for name, value in secrets.items():
                assert value not in ended.out + ended.err
                assert f'{name}="${name}"' in ended.out


def test_no_secret_is_an_argument(door: FrontDoor) -> None:
    secrets = {name: f"the-{name}-itself" for name in SECRETS}
    for runner in ("host", "compose"):
        ended = door.run("etl-load", f"RUNNER={runner}", *(f"{name}={value}" for name, value in secrets.items()))
        assert ended.code == 0, ended.err
        for call in ended.calls:
            assert not any(value in word for word in call["argv"] for value in secrets.values())


def test_flags_arrive_as_they_were_given(door: FrontDoor, tmp_path: Path) -> None:
    for kind in PAYLOADS:
        value = payload(kind, tmp_path / "executed")
        for words in ([f"--prefix={value}"], ["--prefix", value]):
            assert parse(["etl-load", *words], {}).given == {"S3_PREFIX": value}
    ended = door.run("etl-load", "RUNNER=host", "--prefix", "-rf $(touch x)", "--bucket=--help `touch x`")
    assert ended.code == 0, ended.err
    assert ended.stages[-1]["env"]["S3_PREFIX"] == "-rf $(touch x)"
    assert ended.stages[-1]["env"]["S3_BUCKET"] == "--help `touch x`"
    assert not (door.root / "x").exists()


def test_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="S3_PREFIX holds a NUL byte"):
        resolve(tmp_path, {}, {"S3_PREFIX": "a\0b"}, tmp_path)


def test_words_of_pytest_are_split_and_not_executed(door: FrontDoor) -> None:
    ended = door.run("test-unit", 'PYTEST_ARGS=-k "a b" $(touch x) ; touch x')
    assert ended.code == 0, ended.err
    assert ended.stages[-1]["argv"][-7:] == ["-k", "a b", "$(touch", "x)", ";", "touch", "x"]
    assert not (door.root / "x").exists()
