"""The command line: commands, flags, words, and the pages of --help."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from larder.cli.commands import BY_NAME, COMMANDS
from larder.cli.main import parse
from larder.cli.resolve import resolve
from larder.cli.setting_specs import flags_of, settings_of_stages
from larder.errors import ConfigurationError
from tests.unit.cli.conftest import ROOT, FrontDoor

SHOWN = [command for command in COMMANDS if not command.hidden]


def test_settings_are_words_or_flags() -> None:
    invocation = parse(
        [
            "-n",
            "LARDER_DATA_VOLUME=a",
            "etl-load",
            "S3_BUCKET=a=b",
            "--prefix",
            "x y",
            "--transfers=3",
            "--force",
            "-y",
        ],
        {},
    )
    assert invocation.command is BY_NAME["etl-load"]
    assert invocation.given == {
        "LARDER_DATA_VOLUME": "a",
        "S3_BUCKET": "a=b",
        "S3_PREFIX": "x y",
        "LARDER_TRANSFERS": "3",
        "LARDER_FORCE": "true",
        "YES": "1",
    }
    assert invocation.dry_run


def documented_commands() -> list[str]:
    """Return the commands of the documentation's code blocks, as words of `larder`."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "services").glob("*/README.md")]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    found = re.findall(r"^(?:make|larder|python3 -m larder) ([a-z].*)$", "\n".join(blocks), re.MULTILINE)
    return sorted({words for words in found if not words.startswith("provision")})


@pytest.mark.parametrize("words", documented_commands())
def test_documented_commands_have_valid_settings(words: str, tmp_path: Path) -> None:
    resolve(tmp_path, parse(shlex.split(words, comments=True), {}).given, {}, tmp_path)


def test_flags_of_the_same_name_are_settings_of_their_stages() -> None:
    assert parse(["compare", "--bandwidth=200mbit"], {}).given == {"LARDER_LINK_BANDWIDTH": "200mbit"}
    assert parse(["etl-load", "--bandwidth=20MB"], {}).given == {"LARDER_BANDWIDTH": "20MB"}


def test_what_make_was_given_yields_to_words() -> None:
    environ = {"MAKEFLAGS": " -- S3_BUCKET=a S3_PREFIX=b"}
    assert parse(["etl-load", "S3_BUCKET=c"], environ, "make").given == {"S3_BUCKET": "c", "S3_PREFIX": "b"}
    assert parse(["etl-load", "S3_BUCKET=c"], environ).given == {"S3_BUCKET": "c"}  # some other make's


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("etl-wd", "etl-wds"),
        ("etl_local", "etl-local"),
        ("bnech", "bench"),
        ("jupiter", "jupyter"),
        ("s3up", "s3-up"),
        ("cleanlocal", "clean-local"),
        ("umount", "unmount"),
        ("verfy", "verify"),
        ("provison", "provision"),
    ],
)
def test_a_mistyped_command_suggests_the_right_one(typed: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no such command: {typed}; did you mean {meant}\\?"):
        parse([typed], {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["xyzzy"], "no such command: xyzzy\n"),
        ([""], "no such command: "),
        (["\x1b[2J"], r"no such command: \\x1b\[2J"),
        (["etl-load", "--perfix=x"], r"etl-load has no flag --perfix; did you mean --prefix\?"),
        (["etl-load", "--perfix", "the-secret"], r"etl-load has no flag --perfix"),
        (["--frce"], "no such flag: --frce"),
        (["etl-load", "--prefix"], "--prefix needs a value"),
        (["etl-load", "photos"], "etl-load takes no word 'photos'"),
        (["-x"], "no such flag: -x"),
        (["etl-load", "--aws-secret-access-key=x"], "has no flag --aws-secret-access-key"),
    ],
)
def test_a_wrong_word(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse(words, {})
    assert "the-secret" not in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("front_door", "list_of_all", "of_one"),
    [
        ("make", "make help", "python3 -m larder bench --help"),
        ("larder", "larder --help", "larder bench --help"),
        ("python3 -m larder", "python3 -m larder --help", "python3 -m larder bench --help"),
    ],
)
def test_help_uses_the_user_s_front_door(front_door: str, list_of_all: str, of_one: str) -> None:
    for words, message in (
        (["bnech"], f"{list_of_all} lists all of them"),
        (["--hlp"], list_of_all),
        (["bench", "--amr=x"], of_one),
    ):
        with pytest.raises(ConfigurationError) as caught:
            parse(words, {}, front_door)
        assert caught.value.next_step == message
    assert f"\n{of_one.replace('bench', 'COMMAND')} lists" in parse([], {}, front_door).page


def test_words_for_provision_are_its_own() -> None:
    words = ["plan", "--help", "A=b", "-n", "--"]
    assert parse(["provision", *words], {}).words == tuple(words)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_page(command: object) -> None:
    assert isinstance(command, type(COMMANDS[0]))
    if command.words == "...":
        return  # its own parser answers
    page = parse([command.name, "--help"], {}).page
    assert page.startswith(f"usage: larder {command.name}") or command.name == "help"
    for setting in settings_of_stages(command.stages):
        assert re.search(rf"^  {setting.name}\b", page, re.MULTILINE)
        flags = flags_of(command.stages, command.settings)
        assert (f"{setting.name}, {setting.flag}\n" in page) == (setting.flag in flags)
    for name in command.settings:
        assert re.search(rf"^  {name}\b", page, re.MULTILINE)
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.name)
def test_every_command_is_listed_and_a_target_of_make(command: object) -> None:
    assert isinstance(command, type(COMMANDS[0]))
    assert re.search(rf"^  {command.name} +{re.escape(command.summary)}$", parse(["--help"], {}).page, re.MULTILINE)
    targets = re.search(r"^COMMANDS := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert command.name in targets[1].split() or command.name in ("provision", "completion")  # not for make


def test_no_two_flags_of_a_command_are_the_same() -> None:
    for command in COMMANDS:
        settings = settings_of_stages(command.stages)
        for flag, setting in flags_of(command.stages).items():
            assert [other.name for other in settings if other.flag == flag] == [setting.name]
    assert "--task" not in flags_of(BY_NAME["jupyter"].stages)  # of both its stages


@pytest.mark.parametrize("python", ["python3.9", "python3.10"])
def test_older_pythons_start_it(door: FrontDoor, python: str) -> None:
    places = [*os.get_exec_path(), *map(str, Path.home().glob(f".pyenv/versions/{python[6:]}*/bin"))]
    interpreter = shutil.which(python, path=os.pathsep.join(reversed(places)))
    if interpreter is None:
        return  # the next test looks for newer syntax and modules
    for words in (["--help"], ["etl-wds", "--help"], ["etl-wds", "--dry-run", "RUNNER=host"]):
        ended = door.run("-m", "larder", *words, through=(interpreter,))
        assert ended.code == 0, ended.err


def imported() -> list[tuple[str, str]]:
    versions = []
    shared = (
        *("__init__.py", "__main__.py", "errors.py", "dataset.py", "next_step.py", "terminal.py", "source_names.py"),
        *("commands.py", "suggest.py", "typed_line.py"),
        *("distant/__init__.py", "distant/find.py", "distant/link.py"),
    )
    folders = (ROOT / "larder" / "cli", ROOT / "larder" / "bench" / "report")
    modules = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    for path in [*modules, *(ROOT / "larder" / name for name in shared)]:
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in tree.body + [inner for outer in tree.body if isinstance(outer, ast.If) for inner in outer.body]:
            if isinstance(node, ast.Import):
                versions += [(path.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                versions += [(path.name, f"{node.module}.{alias.name}") for alias in node.names]
    return versions


def test_any_python_from_3_9_runs_it_with_the_standard_library() -> None:
    own = {
        "larder.cli",
        "larder.bench.report",
        "larder.errors",
        "larder.commands",
        "larder.suggest",
        "larder.typed_line",
        "larder.dataset",
        "larder.next_step",
        "larder.terminal",
        "larder.source_names",
        "larder.ssh_faults",
        "larder.distant.find",
        "larder.distant.link",
        "larder.__version__",
    }
    for file, name in imported():
        top = name.partition(".")[0]
        assert top in sys.stdlib_module_names or any(name == mine or name.startswith(f"{mine}.") for mine in own), file
    assert not {name for _, name in imported()} & {"tomllib", "enum.StrEnum", "typing.Self", "typing.assert_never"}
    for path in [*(ROOT / "larder" / "cli").rglob("*.py"), *(ROOT / "larder" / "bench" / "report").rglob("*.py")]:
        text = path.read_text()
        assert "from __future__ import annotations" in text or " | None" not in text, path
        assert not re.search(r"\bzip\(.*strict=|\.UTC\b|slots=True", text), path


def test_some_benchmarks_alone(door: FrontDoor) -> None:
    [call] = door.run("benchmarks", "startup", "memory").stages
    assert call["argv"][1:] == ["-m", "benchmarks", "startup", "memory"]


def test_an_unknown_benchmark_is_refused_before_anything_is_installed(door: FrontDoor) -> None:
    ended = door.run("benchmarks", "startup", "shard_sped")
    assert (ended.code, ended.stages) == (2, [])
    assert "there is no benchmark shard_sped; did you mean shard_speed?" in ended.err
    assert "choose from startup, second_run" in ended.err


def test_an_older_python_is_an_error_that_names_the_needed_one() -> None:
    """An older Python parses these two files, so they contain no newer syntax."""
    for name in ("__init__", "__main__"):
        tree = ast.parse((ROOT / "larder" / f"{name}.py").read_text(), feature_version=(3, 6))
        assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
        if name == "__main__":
            [check, later] = [node for node in tree.body if isinstance(node, ast.If | ast.ImportFrom)]
            assert "needs Python 3.9" in ast.unparse(check)
            assert isinstance(later, ast.ImportFrom)


def test_help_loads_little(door: FrontDoor) -> None:
    program = (
        "import sys; from larder.cli.main import main; main(['--help']); "
        "print('|'.join(sorted(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-ISsc", f"import sys; sys.path.insert(0, {str(door.root)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=door.root,
    )
    loaded = set(ended.stderr.strip().split("|"))
    heavy = {
        "pydantic",
        "boto3",
        "torch",
        "yaml",
        "asyncio",
        "argparse",
        "http.client",
        "ssl",
        "multiprocessing",
        "email",
    }
    assert not loaded & heavy


def test_help_and_version(door: FrontDoor) -> None:
    page = door.run("--help")
    assert page.code == 0
    assert page.out.startswith("usage: python3 -m larder COMMAND")
    assert door.run().out == door.run("help").out == page.out
    assert door.run("--version").out.startswith("larder ")
    assert door.run(through=("make",)).out.startswith("usage: make COMMAND")
    assert not page.err
    assert not page.calls


def test_a_closed_pipe_is_no_error(door: FrontDoor) -> None:
    line = '"$1" -m larder --help | head -1; "$1" -m larder etl-wds --dry-run RUNNER=host | head -1; echo'
    ended = door.run("-c", line, "bash", str(door.bin / "python3"), through=("bash",), PATH=f"{door.bin}:/usr/bin:/bin")
    assert len(ended.out.splitlines()) == 3, ended.err
    assert "Traceback" not in ended.err
    assert "Broken pipe" not in ended.err


def test_compare_works_without_a_checkout(tmp_path: Path) -> None:
    """It runs with the Python of the installed package, which has been told the shards and settings."""
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "larder", site / "larder")
    command = [sys.executable, "-m", "larder", "compare", "s3://bucket/shards", "--workers", "1,2", "--quick"]
    ended = subprocess.run(
        [*command, "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(site), "HOME": str(tmp_path)},
    )
    expected = f"LARDER_WORKERS=1,2 LARDER_QUICK=true {sys.executable} -m larder.bench.comparison "
    assert ended.stdout == f"{expected}--shards s3://bucket/shards\n"


def test_compare_takes_one_folder(door: FrontDoor) -> None:
    ended = door.run("compare", "s3://bucket/one", "s3://bucket/two")
    assert ended.code == 2
    assert "compare takes one folder of shards" in ended.err


def test_a_command_without_a_checkout_says_so(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "larder", site / "larder")
    ended = subprocess.run(
        [sys.executable, "-m", "larder", "etl-load"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(site), "HOME": str(tmp_path)},
    )
    assert ended.returncode == 2
    assert "needs a checkout" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 3
