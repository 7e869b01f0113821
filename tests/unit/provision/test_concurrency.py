"""Two runs at the same time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import InputError
from larder.progress import NullReporter
from provision import concurrency
from provision.__main__ import main
from provision.concurrency import withdraw_if_later
from provision.marks import Resource


@pytest.fixture
def declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A declaration without resources, and no cloud to log in to."""
    monkeypatch.setenv("LARDER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OS_CLOUD", "nowhere")
    path = tmp_path / "provision.toml"
    path.write_text('name = "lab"\n')
    return path


def test_a_second_command_that_changes_the_stack_is_refused(
    declaration: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "home/provision/lab"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as held:
        held.write("`provision up`, process 4711\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        for words in (["up"], ["down", "--yes"], ["volume", "create", "v"], ["lease", "extend", "1"]):
            assert main(["--file", str(declaration), *words]) == 3
            said = capfd.readouterr().err
            assert "`provision up`, process 4711" in said and "wait until it has ended" in said
        for words in (["plan"], ["status"]):
            assert main(["--file", str(declaration), *words]) != 3
            assert "4711" not in capfd.readouterr().err
    assert main(["--file", str(declaration), "up"]) != 3
    assert "up`, process" in (folder / "lock").read_text()


def server(id: str, created_at: str | None) -> Resource:
    return Resource("server", "lab", id, "ACTIVE", raw=SimpleNamespace(created_at=created_at))


@pytest.mark.parametrize(
    ("mine", "other", "withdraws"),
    [
        (("b", "2026-01-01T00:00:01Z"), ("a", "2026-01-01T00:00:00Z"), True),
        (("a", "2026-01-01T00:00:01Z"), ("b", "2026-01-01T00:00:00Z"), True),
        (("b", "2026-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:00Z"), True),
        (("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), False),
        (("b", "2026-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:01Z"), False),
        (("b", None), ("a", None), True),
        (("a", None), ("b", None), False),
    ],
)
def test_the_later_of_two_withdraws_and_the_earlier_waits(
    monkeypatch: pytest.MonkeyPatch, mine: tuple[str, str | None], other: tuple[str, str | None], withdraws: bool
) -> None:
    monkeypatch.setattr("provision.clouds.POLL_SECONDS", 0.01)
    left = [server(*mine), server(*other)]
    asked = 0

    def list_ours() -> list[Resource]:
        nonlocal asked
        asked += 1
        if asked == 3:  # the other run withdraws
            left.remove(server_of(other[0]))
        return list(left)

    def server_of(id: str) -> Resource:
        return next(item for item in left if item.id == id)

    stack = cast(Any, SimpleNamespace(name="lab", reporter=NullReporter(), report=lambda *words: None))

    def withdraw() -> None:
        withdraw_if_later(stack, server(*mine), list_ours, lambda: left.remove(server_of(mine[0])))

    if withdraws:
        with pytest.raises(InputError, match=rf"another run created server lab \({other[0]}\)"):
            withdraw()
        assert [item.id for item in left] == [other[0]]
    else:
        withdraw()
        assert [item.id for item in left] == [mine[0]] and asked == 3


def test_both_may_withdraw_but_one_does_if_the_other_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the other run had looked before this one's server was there, or had been killed."""
    monkeypatch.setattr(concurrency, "WITHDRAW_SECONDS", 0)
    left = [server("a", "1"), server("b", "1")]
    stack = SimpleNamespace(name="lab", reporter=NullReporter(), report=lambda event, text: None)
    with pytest.raises(InputError, match="deleted its own"):
        withdraw_if_later(cast(Any, stack), left[0], lambda: left, lambda: left.pop(0))
    assert [item.id for item in left] == ["b"]
