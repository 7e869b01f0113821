"""The resources that `down --delete-data NAME` selects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError
from larder.progress import Reporter
from provision import marks
from provision.declaration import load_declaration
from provision.down import down, removals
from provision.marks import Resource
from provision.stack import Stack
from provision.status import Status

DECLARED = 'name = "lab"\n[[volume]]\nname = "block"\ngib = 1\n[bucket]\nname = "data"\n'


def volume(id: str, name: str, part: str = "", status: str = "available") -> Resource:
    return Resource("volume", name, id, status, raw=SimpleNamespace(metadata={marks.PART: part}))


def chosen(tmp_path: Path, status: Status, *names: str) -> list[str]:
    """Return the ids of what `down` would remove."""
    path = tmp_path / "provision.toml"
    path.write_text(DECLARED)
    stack = cast(Any, SimpleNamespace(name="lab", declaration=load_declaration(path)))
    return [item.resource.id for item in removals(stack, status, names)]


THINGS = Status(
    (),
    (),
    (),
    (),
    (volume("1", "old name", "block"), volume("2", ""), volume("3", "twice"), volume("4", "twice")),
    (Resource("bucket", "data", "data", ""),),
    (),
)
NOTHING = Status((), (), (), (), (), (), ())


def test_a_volume_is_named_by_its_declared_or_its_cloud_name(tmp_path: Path) -> None:
    assert chosen(tmp_path, THINGS) == []
    assert chosen(tmp_path, THINGS, "block", "data", "old name") == ["1", "data"]
    assert chosen(tmp_path, NOTHING, "block", "data", "boot") == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other", "has that name"),
        ("", "has that name"),
        ("twice", r"volume twice \(3\)\n.*volume twice \(4\)"),
    ],
)
def test_a_name_of_nothing_or_of_two_is_refused(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        chosen(tmp_path, THINGS, "block", name)


def test_down_waits_for_a_volume_that_is_being_deleted_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "provision.toml"
    path.write_text(DECLARED)
    storage = SimpleNamespace(volumes=list)  # that is all it can be asked
    site = SimpleNamespace(client=lambda service: storage)
    stack = Stack(load_declaration(path), cast(Any, SimpleNamespace(compute=site)), Reporter("provision"))
    leaving = Status((), (), (), (), (volume("1", "block", "block", "deleting"),), (), ())
    down(stack, removals(stack, leaving, ["block"]), leaving)
