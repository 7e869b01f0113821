"""Foreign text can't move the cursor, hide, or imitate our lines, wherever it is printed."""

from __future__ import annotations

import ast
import io
import json
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder import errors, stage
from larder.background import BackgroundProcess
from larder.cli import console
from larder.cli import main as front_door
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.loaders.failures import WorkerError, map_worker_errors
from larder.progress import Reporter
from larder.s3_faults import explain_code
from larder.settings import Settings
from larder.sources.members import unsafe_source_error
from larder.stage import StageOutcome
from larder.terminal import MAX_LINE_LENGTH, Lines, as_json, escape, join_lines, print_escaped
from provision import status
from services.verify.findings import changed_content_error

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = {
    "newline": "a\nerror: forged\n  next step: rm -rf ~",
    "carriage return": "a\rerror: forged",
    "escape": "a\x1b[2K\x1b[1Aerror: forged",
    "C1": "a\x9b2Jb\x85c",
    "delete and bell": "a\x7f\x07\x08b",
    "separators": "a\u2028error: forged\u2029b\x0bc\x0cd\x1ce",
    "bidi": "a\u202egpj.exe\u2066b\u2069\u200f",
    "invisible": "a\u200b\ufeff\u00adb\U000e0041",
    "surrogate": "a\udcff\ud800b",
}
"""Names of files, objects and servers."""
hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())


def harmless(text: str) -> bool:
    """Return whether each line is printable, and none of them begins as a forged one."""
    return all(
        line.isprintable() and not line.startswith(("error: forged", "  next step: rm")) for line in text.split("\n")
    )


@given(st.text(st.characters(exclude_categories=[]), max_size=200))
def test_any_text_becomes_one_printable_line_once(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert escape(shown) == shown
    assert (shown == text) == text.isprintable()


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("", "图é.jpg", "a b.jpg", "Ärger", "naïve", "🍜.png", "العربية.jpg"):
        assert escape(text) == text


def test_a_line_has_an_end() -> None:
    assert len(escape("x" * 10**6)) == MAX_LINE_LENGTH
    assert len(escape("\x1b" * 10**6)) <= 4 * MAX_LINE_LENGTH


def test_only_our_own_line_breaks_stay() -> None:
    assert join_lines("a\nb", "c") == "a\\nb\nc"
    assert escape(join_lines("a", "b")) == "a\nb"
    assert Lines("a\nb").map(str.upper) == "A\nB"


@given(st.dictionaries(st.text(st.characters(exclude_categories=[])), st.text(st.characters(exclude_categories=[]))))
def test_json_keeps_values_and_is_printable(fields: dict[str, str]) -> None:
    text = as_json(fields)
    assert text.isprintable() and text.isascii()
    text.encode()
    if all(not ("\ud800" <= c <= "\udfff") for pair in fields.items() for word in pair for c in word):
        assert json.loads(text) == fields


def test_json_escapes_lone_surrogates_alone() -> None:
    assert json.loads(as_json({"a": "\udcff \U0001f35c \\ud800 \ud83c"})) == {"a": "\\udcff 🍜 \\ud800 \\ud83c"}


def test_an_encoding_that_lacks_a_character() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_escaped("é🍜", file=stream)
    assert stream.buffer.getvalue() == b"\\xe9\\U0001f35c\n"  # type: ignore[attr-defined]


@hostile
@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LarderError)]
)
def test_every_error_is_harmless_however_it_is_shown(kind: type[LarderError], name: str) -> None:
    error = kind(f"{name} is wrong", next_step=f"look at {name}")
    for text in (str(error), error.what, error.next_step, error.format(), "\n".join(error._render_traceback_())):
        assert harmless(text), text
    assert error.format().count("\n") == 1


@hostile
def test_errors_of_several_lines(name: str, tmp_path: Path) -> None:
    server = BackgroundProcess("the server", tmp_path, arguments={"x"})
    server.log.write_text(f"first\n{name}\n", errors="surrogatepass")
    several = [
        ConfigurationError.of_faults([name, name], next_step=name),
        unsafe_source_error(name, name, name),
        changed_content_error("a file", name, name, name, name, name),
        explain_code("NoSuchBucket", name, f"reading s3://{name}"),
        explain_code(name, name, name),
        server._failed("ended:", *server.last_lines()),
    ]
    for error in several:
        assert harmless(error.format()), error.format()


@hostile
@pytest.mark.parametrize("log", ["line", "json"])
def test_stage_and_its_events(name: str, log: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work(_: Settings, reporter: Reporter) -> StageOutcome:
        reporter.event("warning", f"{name} is odd", path=name)
        with reporter.task(f"reading {name}", 3, "files") as task:
            task.advance()
        if log == "line":
            raise ServiceError(f"{name} failed", next_step=f"see {name}")
        return StageOutcome(f"made {name}", f"use {name}", {"path": name})

    before = signal.getsignal(signal.SIGTERM)
    try:
        stage.main("transform", Settings, work, "", [f"--log={log}"])
    finally:
        signal.signal(signal.SIGTERM, before)
    stderr = capsys.readouterr().err.removesuffix("\n")
    assert harmless(stderr), stderr
    if log == "json":
        events = [json.loads(line) for line in stderr.split("\n")]
        assert [event["event"] for event in events] == ["warning", "done", "next"]
        assert all(event["message"].isprintable() for event in events)
        if "surrogate" not in name and "\udcff" not in name:
            assert events[0]["path"] == events[1]["path"] == name
    else:
        assert stderr.count("\n") == 2
        assert [line.partition(" ")[0] for line in stderr.split("\n")] == ["transform:", "transform:", ""]


@hostile
def test_front_door(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "parse", lambda *_: (_ for _ in ()).throw(InputError(name, next_step=name)))
    assert front_door.main([]) == 3
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "who calls it keeps what becomes of its own pipes"
    console.print_message(name)
    console.print_result(name)
    stderr = capsys.readouterr()
    assert harmless(stderr.err.removesuffix("\n")) and harmless(stderr.out.removesuffix("\n"))
    assert stderr.err.count("\n") == 3


@hostile
def test_tables(name: str) -> None:
    rows = status.table([("volume", name, "x"), (name, "b", name)])
    assert harmless(rows)
    assert rows.count("\n") == 1


@hostile
def test_errors_that_come_out_of_a_worker(name: str) -> None:
    error = ConfigurationError.of_faults([name, "b"], next_step=name)
    with pytest.raises(ConfigurationError) as caught, map_worker_errors():
        raise WorkerError.from_error(error)
    assert caught.value.format() == error.format()


def test_no_error_has_a_bare_line_break() -> None:
    """`join_lines` joins the lines of a message: a line break in an error's text would be shown as an escape."""
    for folder in ("larder", "services", "provision"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args:
                    if ast.unparse(node.args[0]).startswith(("join_lines(", "Lines(")):
                        continue
                    text = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
                    assert not [part for part in text if isinstance(part, str) and "\n" in part], ast.unparse(node)


def test_only_one_module_prints() -> None:
    """Results and messages go through `larder.terminal`; these modules print only shell code or our own pages."""
    own = {
        "larder/terminal.py",
        "larder/cli/main.py",
        "larder/cli/app.py",
        "larder/cli/inventory.py",
        "larder/cli/commands/completion.py",
        "larder/cli/console.py",
        "larder/cli/remote.py",  # the command of a dry run
        "larder/bench/own_loaders.py",  # figures, in a notebook
        "larder/cli/lock.py",
        "larder/distant/__main__.py",  # its port, for the process that started it
        "larder/stream/build.py",
        "provision/commands.py",
        "provision/caller.py",  # a question, which is escaped
        "provision/host/keys.py",  # one file, alone on a server
        "provision/host/volume.py",  # likewise
    }
    violations = set()
    for folder in ("larder", "services", "provision"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "print",
                    "sys.stderr.write",
                    "sys.stdout.write",
                ):
                    violations.add(str(path.relative_to(ROOT)))
    assert violations <= own, violations - own


def test_the_module_needs_nothing(tmp_path: Path) -> None:
    tree = ast.parse((ROOT / "larder" / "terminal.py").read_text())
    names = {node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
