"""What `down --delete-data` takes a name for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError
from larder.progress import Reporter
from provision import marks
from provision.declaration import load
from provision.down import down, removals
from provision.marks import Thing
from provision.stack import Stack
from provision.status import Status

DECLARED = 'name = "lab"\n[[volume]]\nname = "block"\ngib = 1\n[bucket]\nname = "data"\n'


def volume(id: str, name: str, part: str = "", status: str = "available") -> Thing:
    return Thing("volume", name, id, status, raw=SimpleNamespace(metadata={marks.PART: part}))


def chosen(tmp_path: Path, status: Status, *names: str) -> list[str]:
    """The ids of what `down` would remove."""
    path = tmp_path / "provision.toml"
    path.write_text(DECLARED)
    stack = cast(Any, SimpleNamespace(name="lab", declaration=load(path)))
    return [item.thing.id for item in removals(stack, status, names)]


THINGS = Status((), (), (), (), (volume("1", "old name", "block"), volume("2", ""), volume("3", "twice"),
                                 volume("4", "twice")), (Thing("bucket", "data", "data", ""),), ())  # fmt: skip
NOTHING = Status((), (), (), (), (), (), ())


def test_a_name_is_the_declared_one_or_the_one_in_the_cloud_and_counts_once(tmp_path: Path) -> None:
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


def test_a_volume_that_is_being_deleted_is_waited_for_and_not_read_since_it_may_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "provision.toml"
    path.write_text(DECLARED)
    storage = SimpleNamespace(volumes=list)  # that is all it can be asked
    site = SimpleNamespace(connection=SimpleNamespace(block_storage=storage))
    stack = Stack(load(path), cast(Any, SimpleNamespace(compute=site)), Reporter("provision"))
    leaving = Status((), (), (), (), (volume("1", "block", "block", "deleting"),), (), ())
    down(stack, removals(stack, leaving, ["block"]), leaving)
