"""What a run leaves in flight is waited for by the next one, which neither creates it twice nor overlooks it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk

from larder.errors import InputError, LarderError, ServiceError
from larder.progress import NullReporter
from provision import extension, in_flight, settle
from provision.clouds import Cloud, create_once
from provision.declaration import Site
from provision.extension import Extension
from provision.in_flight import FILE, Note
from provision.marks import Resource, select_one

CLOUD = Cloud("compute", Site(), 60)


def fails(error: BaseException) -> Callable[[], str]:
    def create() -> str:
        raise error

    return create


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (KeyboardInterrupt(), True),
        (ksa.ConnectFailure("lost"), True),
        (ksa.ConnectTimeout("timed out"), True),
        (sdk.HttpException("gateway", http_status=504), True),
        (sdk.HttpException("busy", http_status=503), False),
        (sdk.HttpException("failed", http_status=500), False),
        (sdk.ConflictException("taken", http_status=409), False),
        (InputError("refused", next_step="declare less"), False),
    ],
    ids=lambda value: str(value or type(value).__name__),
)
def test_a_note_stays_only_as_long_as_the_cloud_may_be_working(
    tmp_path: Path, error: BaseException, stays: bool
) -> None:
    note = Note(tmp_path / "lab", "volume", "block")
    with pytest.raises((LarderError, KeyboardInterrupt)):
        create_once(CLOUD, "create it", fails(error), lambda: None, note)
    left = in_flight.read(tmp_path / "lab")
    assert (left is not None) == stays and (left is None or (left.kind, left.name) == ("volume", "block"))


def test_a_note_is_there_while_the_request_runs_and_gone_after_its_answer(tmp_path: Path) -> None:
    note = Note(tmp_path, "server")
    seen = create_once(CLOUD, "create it", lambda: str(in_flight.read(tmp_path)), lambda: None, note)
    assert seen == "server" and in_flight.read(tmp_path) is None
    found = create_once(CLOUD, "create it", fails(ksa.ConnectFailure("lost")), lambda: "found", note)
    assert found == "found" and in_flight.read(tmp_path) is None


def stack(folder: Path, seconds: float = 60.0) -> Any:
    declared = SimpleNamespace(limits=SimpleNamespace(request=seconds))
    return SimpleNamespace(
        state_folder=folder, declaration=declared, reporter=NullReporter(), report=lambda *words: None
    )


def leave(folder: Path, age_seconds: float = 0.0) -> None:
    (folder / FILE).write_text(json.dumps({"kind": "volume", "name": "block", "sent_at": time.time() - age_seconds}))


def test_what_was_in_flight_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [[], ServiceError("busy", next_step="wait"), ["other"], ["other", "block"]]

    def lister(stack: Any) -> list[Resource]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [Resource("volume", name, f"id-{name}", "creating") for name in answer]

    monkeypatch.setitem(settle.LISTERS, "volume", lister)
    leave(tmp_path)
    settle.settle(stack(tmp_path))
    assert answers == [] and not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("age_seconds", "seconds"), [(3600.0, 60.0), (-3600.0, 0.2), (0.0, 0.2)], ids=["old", "of the future", "new"]
)
def test_waiting_ends_when_nothing_can_be_in_flight_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_seconds: float, seconds: float
) -> None:
    monkeypatch.setitem(settle.LISTERS, "volume", lambda stack: [])
    leave(tmp_path, age_seconds)
    begin = time.monotonic()
    settle.settle(stack(tmp_path, seconds))
    assert time.monotonic() - begin < 5 and not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kind": "volume"}', '{"kind": "x", "name": "", "sent_at": "y"}'])
def test_a_note_that_is_none_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    settle.settle(stack(tmp_path))
    assert in_flight.read(tmp_path) is None


def test_every_kind_that_is_noted_can_be_looked_for() -> None:
    sources = (path.read_text() for path in Path(settle.__file__).parent.glob("*.py"))
    noted_kinds = {part.split('"')[1] for text in sources for part in text.split("stack.note(")[1:]}
    assert noted_kinds == set(settle.LISTERS)


def test_of_two_of_ours_the_later_is_named() -> None:
    two = [
        Resource("volume", "block", id, "available", raw=SimpleNamespace(created_at=at))
        for id, at in (("b", "2026-01-01T00:00:00Z"), ("a", "2026-01-01T00:00:05Z"))
    ]
    with pytest.raises(InputError, match="there are 2 resources") as raised:
        select_one(two, adopt=False)
    assert "a was created last" in raised.value.next_step


OLD, NEW = "2026-12-01 10:00", "2026-12-01 12:00"


@pytest.mark.parametrize(
    ("again", "continues"),
    [
        (Extension("l", 2, OLD, NEW), True),  # the lease still has its old end
        (Extension("l", 2, NEW, "2026-12-01 14:00"), True),  # or the new one already
        (Extension("l", 3, OLD, "2026-12-01 13:00"), False),
        (Extension("m", 2, OLD, NEW), False),
        (Extension("l", 2, "2026-12-02 10:00", "2026-12-02 12:00"), False),  # somebody has moved it meanwhile
    ],
    ids=["not done", "done", "other hours", "other lease", "moved"],
)
def test_an_extension_is_completed_only_by_the_same_command(tmp_path: Path, again: Extension, continues: bool) -> None:
    assert not again.continues(extension.read(tmp_path))
    Extension("l", 2, OLD, NEW).write(tmp_path)
    assert again.continues(extension.read(tmp_path)) == continues
    extension.remove(tmp_path)
    assert extension.read(tmp_path) is None
