"""The repository script with real git: clones, updates, and never loses changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "provision/host/repository.sh"
WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


class Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Place:
    """An origin, and a home directory for its clone."""

    def __init__(self, folder: Path) -> None:
        self.origin, self.home = folder / "work.git", folder / "home"
        self.clone = self.home / "work"
        self.home.mkdir()
        self._env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", **WHO}
        self.git(folder, "init", "--quiet", "--initial-branch=main", str(self.origin))
        self.commit(self.origin, "one")

    def git(self, where: Path, *words: str) -> str:
        return subprocess.check_output(["git", *words], cwd=where, env=self._env, text=True).strip()

    def commit(self, where: Path, text: str) -> str:
        (where / "file").write_text(text)
        self.git(where, "add", "file")
        self.git(where, "commit", "--quiet", "-m", text)
        return self.git(where, "rev-parse", "HEAD")

    def run(self, *options: str, url: str = "") -> Ended:
        argv = [str(SCRIPT), "--url", url or str(self.origin), *options]
        ended = subprocess.run(argv, env=self._env, capture_output=True, text=True, check=False, timeout=60)
        return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_clone_follows_its_origin(place: Place) -> None:
    assert place.run().code == 0
    new = place.commit(place.origin, "two")
    for _ in range(2):
        assert place.run().code == 0
        assert place.git(place.clone, "rev-parse", "HEAD") == new


def test_revision_is_a_branch_a_tag_or_a_commit(place: Place) -> None:
    first = place.git(place.origin, "rev-parse", "HEAD")
    place.git(place.origin, "tag", "v1")
    place.git(place.origin, "branch", "side")
    place.commit(place.origin, "two")
    for revision in ("v1", "side", first):
        assert place.run("--revision", revision).code == 0
        assert place.git(place.clone, "rev-parse", "HEAD") == first


def test_fetch_updates_branches_and_moved_tags(place: Place) -> None:
    place.git(place.origin, "tag", "v1")
    assert place.run().code == 0
    new = place.commit(place.origin, "two")
    place.git(place.origin, "tag", "--force", "v1")
    for options in ((), ("--revision", "v1")):
        ended = place.run(*options)
        assert ended.code == 0, ended.stderr
        assert place.git(place.clone, "rev-parse", "HEAD") == new
    moved = place.commit(place.origin, "three")
    place.git(place.origin, "tag", "--force", "v1")
    assert place.run("--revision", "v1").code == 0
    assert place.git(place.clone, "rev-parse", "HEAD") == moved


def test_tags_of_ones_own_stay_where_git_is_set_to_prune(place: Place) -> None:
    place.run()
    place.git(place.clone, "tag", "mine")
    place.git(place.clone, "config", "fetch.prune", "true")
    assert place.run().code == 0
    assert place.git(place.clone, "tag") == "mine"


def test_changes_stay_whether_committed_or_not(place: Place) -> None:
    place.run()
    (place.clone / "file").write_text("mine")
    place.commit(place.origin, "two")
    ended = place.run("--revision", "main")
    assert ended.code == 0 and "changes that aren't committed" in ended.stdout
    assert (place.clone / "file").read_text() == "mine"
    mine = place.commit(place.clone, "mine, committed")
    ended = place.run()
    assert ended.code == 0 and "commits that the origin doesn't have" in ended.stdout
    assert place.git(place.clone, "rev-parse", "HEAD") == mine


def test_interrupted_clone_is_repeated(place: Place) -> None:
    (place.home / "work.larder-part").mkdir()
    assert place.run().code == 0
    assert [path.name for path in place.home.iterdir()] == ["work"]


def test_folder_of_somebody_is_left_alone(place: Place) -> None:
    place.clone.mkdir()
    (place.clone / "theirs").write_text("theirs")
    ended = place.run()
    assert ended.code == 3 and "exists and isn't a clone" in ended.stderr
    assert [path.name for path in place.clone.iterdir()] == ["theirs"]


def test_clone_of_something_else_is_left_alone(place: Place, tmp_path: Path) -> None:
    place.run()
    ended = place.run("--into", str(place.clone), url=str(tmp_path / "other.git"))
    assert ended.code == 3 and f"is a clone of {place.origin}, not of" in ended.stderr


def test_what_is_not_there_is_reported(place: Place, tmp_path: Path) -> None:
    unreachable = place.run(url=str(tmp_path / "none.git"))
    assert unreachable.code == 5 and "git can't read" in unreachable.stderr
    unknown = place.run("--revision", "v9")
    assert unknown.code == 3 and "has no revision v9" in unknown.stderr
    assert not place.clone.exists()


def test_wrong_usage_is_reported(place: Place) -> None:
    for options in (("--revision",), ("--branch", "main"), ("--revision", "--upload-pack=x")):
        ended = place.run(*options)
        assert ended.code == 2 and "next step: repository.sh --help" in ended.stderr
