"""A container is told which folders of the host are mounted where."""

from __future__ import annotations

import json

from services.host_paths import VARIABLE
from tests.unit.cli.conftest import FrontDoor


def test_larder_tells_the_container_its_folders(door: FrontDoor) -> None:
    ended = door.run("compare", "RUNNER=compose", "LARDER_RESULTS=my results")
    [call] = [call for call in ended.stages if "run" in call["argv"]]
    folders = json.loads(call["env"][VARIABLE])
    assert folders["/results"] == str(door.root / "my results")
    assert folders["/mount"] == str(door.root / ".larder" / "mount")


def test_without_containers_there_are_none(door: FrontDoor) -> None:
    ended = door.run("compare", "RUNNER=host")
    assert all(VARIABLE not in call["env"] for call in ended.stages)
