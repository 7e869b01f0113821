"""The compose project of a checkout: the first on a machine keeps the plain name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from larder.cli.project import claim_project_name, hash_path
from tests.unit.cli.conftest import ROOT, FrontDoor


def a_checkout(folder: Path) -> Path:
    (folder / "compose").mkdir(parents=True)
    (folder / "compose" / "stage.yaml").touch()
    return folder


def test_the_first_keeps_the_plain_name(tmp_path: Path) -> None:
    first, second, third = (a_checkout(tmp_path / name) for name in ("a", "b", 'it\'s "c" ä'))
    environ = {"HOME": str(tmp_path)}
    assert claim_project_name(first, environ) == "larder"
    assert claim_project_name(second, environ) == f"larder-{hash_path(second)}"
    assert claim_project_name(third, environ) == f"larder-{hash_path(third)}"
    assert hash_path(second) != hash_path(third)
    assert [claim_project_name(first, environ), claim_project_name(second, environ)] == [
        "larder",
        f"larder-{hash_path(second)}",
    ]


def test_a_deleted_first_one_frees_the_name(tmp_path: Path) -> None:
    first, second = a_checkout(tmp_path / "a"), a_checkout(tmp_path / "b")
    environ = {"HOME": str(tmp_path)}
    claim_project_name(first, environ)
    shutil.rmtree(first)
    assert claim_project_name(second, environ) == "larder"
    assert claim_project_name(a_checkout(tmp_path / "a"), environ) == f"larder-{hash_path(first)}"


def test_servers_of_another_user_have_the_name(tmp_path: Path) -> None:
    theirs, mine = a_checkout(tmp_path / "theirs"), a_checkout(tmp_path / "mine")
    environ = {"HOME": str(tmp_path / "home")}
    assert claim_project_name(mine, environ) == "larder"
    assert claim_project_name(mine, environ, {theirs}) == f"larder-{hash_path(mine)}"
    assert claim_project_name(mine, environ) == f"larder-{hash_path(mine)}", "also while none of theirs runs"
    another = {"HOME": str(tmp_path / "another")}
    assert claim_project_name(mine, another) == "larder"
    assert claim_project_name(mine, another, {theirs, mine}) == "larder", "a server that runs keeps its project"
    assert claim_project_name(mine, another, {tmp_path / "moved"}) == "larder", "a checkout that is gone holds nothing"


def test_a_link_to_a_checkout_is_that_checkout(tmp_path: Path) -> None:
    first = a_checkout(tmp_path / "a")
    (tmp_path / "link").symlink_to(first)
    assert [
        claim_project_name(first, {"HOME": str(tmp_path)}),
        claim_project_name(tmp_path / "link", {"HOME": str(tmp_path)}),
    ] == ["larder"] * 2


def test_where_it_stands(tmp_path: Path) -> None:
    first = a_checkout(tmp_path / "a")
    claim_project_name(first, {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": str(tmp_path / "state")})
    register = tmp_path / "state" / "larder" / "checkouts.json"
    assert json.loads(register.read_text()) == {"larder": str(first)}
    claim_project_name(first, {"HOME": str(tmp_path / "home")})
    assert (tmp_path / "home" / ".local" / "state" / "larder" / "checkouts.json").exists()
    assert claim_project_name(first, {}) == "larder"


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"larder": 7}', "null", "\udcff"])
def test_a_damaged_register_is_rewritten(tmp_path: Path, text: str) -> None:
    first, second = a_checkout(tmp_path / "a"), a_checkout(tmp_path / "b")
    register = tmp_path / "larder" / "checkouts.json"
    register.parent.mkdir()
    register.write_bytes(text.encode("utf-8", "surrogateescape"))
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    assert claim_project_name(first, environ) == "larder"
    assert claim_project_name(second, environ) != "larder"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    first, second = a_checkout(tmp_path / "a"), a_checkout(tmp_path / "b")
    (tmp_path / "file").touch()
    for environ in ({"XDG_STATE_HOME": str(tmp_path / "file")}, {"HOME": "/proc"}, {"HOME": "/dev/null"}):
        assert claim_project_name(first, environ) == "larder"
        assert claim_project_name(second, environ) == "larder"  # as compose by itself would call it


def test_of_many_at_once_one_is_the_first(tmp_path: Path) -> None:
    checkouts = [a_checkout(tmp_path / f"c{at}") for at in range(6)]
    program = (
        "import sys; from pathlib import Path; from larder.cli.project import claim_project_name; "
        "print(claim_project_name(Path(sys.argv[1]), {'HOME': sys.argv[2]}))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(checkout), str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for checkout in checkouts
    ]
    names = [process.communicate()[0].strip() for process in started]
    assert names.count("larder") == 1
    assert len(set(names)) == 6
    assert [claim_project_name(checkout, {"HOME": str(tmp_path)}) for checkout in checkouts] == names


def test_the_users_name_wins(door: FrontDoor) -> None:
    for given in ({"COMPOSE_PROJECT_NAME": "mine"}, dict[str, str]()):
        (door.root / ".env").write_text("" if given else "COMPOSE_PROJECT_NAME=mine\n")
        ended = door.run("etl-load", "RUNNER=compose", "--dry-run", environ=given)
        assert ended.code == 0, ended.err
        assert "-p larder" not in ended.out
        assert not (door.machine / "home" / ".local").exists()
        run = door.run("etl-load", "RUNNER=compose", environ=given).stages[-1]
        reads_file = run["argv"][2:4] == ["--env-file", ".env"]
        assert run["env"].get("COMPOSE_PROJECT_NAME") == "mine" if given else reads_file


def test_a_second_checkout_uses_its_own_project(door: FrontDoor, tmp_path: Path) -> None:
    claim_project_name(a_checkout(tmp_path / "first"), door.environ)
    ended = door.run("s3-up", "RUNNER=compose")
    name = f"larder-{hash_path(door.root)}"
    for call in ended.stages:
        assert call["argv"][2:4] == ["-p", name]
