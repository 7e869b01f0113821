"""A staged artifact: locked, swapped in atomically, and cleared of remains of killed runs."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from larder import volume
from larder.contract import IndexEntry, Manifest, find_manifest, find_missing_file, read_index
from larder.errors import InputError, StorageError
from larder.ledger import Ledger
from larder.volume import StagedArtifact, remove_tree, require_space, swap_in, volume_name


@pytest.fixture
def staged_artifact(tmp_path: Path) -> StagedArtifact:
    return StagedArtifact(tmp_path, "raw")


def make(staged_artifact: StagedArtifact, content: bytes, inner: str = "") -> Manifest:
    with Ledger(staged_artifact.ledger_path, content.hex()) as ledger:
        staged_artifact.resume(ledger)
        (staged_artifact.staged / inner).mkdir(exist_ok=True)
        (staged_artifact.staged / inner / "file").write_bytes(content)
        if "file" not in ledger:
            ledger.add([IndexEntry("file", len(content), hashlib.sha256(content).hexdigest())])
        index = staged_artifact.write_index(ledger.entries())
        manifest = Manifest(
            artifact="raw",
            dataset="x",
            classes=[],
            splits={},
            input={},
            settings={},
            files=1,
            bytes=len(content),
            index=index,
        )
        staged_artifact.commit(manifest, {"a": 1}, ledger, inner)
    return manifest


@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "no exchange"])
def test_commit_replaces_all(staged_artifact: StagedArtifact, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    if not atomic:
        monkeypatch.setattr(volume, "_exchange", lambda *_: False)
    for content in (b"one", b"two"):
        manifest = make(staged_artifact, content)
        assert (staged_artifact.folder / "file").read_bytes() == content
        assert find_manifest(staged_artifact.folder) == manifest
        assert find_missing_file(staged_artifact.folder, manifest) is None
        assert not staged_artifact.work.exists()


def test_swap_exchanges(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    swap_in(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "new").exists()
    assert (tmp_path / "new" / "old").exists()


def test_resume_clears_all_but_downloads(staged_artifact: StagedArtifact) -> None:
    for folder in (staged_artifact.staged, staged_artifact.work / "unwrapped" / "x", staged_artifact.downloads / "x"):
        folder.mkdir(parents=True)
    with Ledger(staged_artifact.ledger_path, "key") as ledger:
        assert not staged_artifact.resume(ledger)
    assert sorted(path.name for path in staged_artifact.work.iterdir() if path.is_dir()) == ["downloads", "new"]
    with Ledger(staged_artifact.ledger_path, "key") as ledger:
        assert staged_artifact.resume(ledger)


def test_only_one_writer(staged_artifact: StagedArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        staged_artifact.lock(),
        pytest.raises(StorageError, match=f"another run is using {staged_artifact.root}") as caught,
        staged_artifact.lock(),
    ):
        pass
    assert f"fuser -v {staged_artifact.root}/.larder/lock" in caught.value.next_step
    monkeypatch.setattr(volume, "volume_name", lambda root: "food11")
    with (
        staged_artifact.lock(),
        pytest.raises(StorageError, match=rf"using the volume food11 \({staged_artifact.root}\)") as caught,
        staged_artifact.lock(),
    ):
        pass
    assert "docker ps --filter volume=food11" in caught.value.next_step
    with staged_artifact.lock():
        pass


class Killed(BaseException):
    """Simulates SIGKILL: code can't catch it."""


@pytest.mark.parametrize("inner", ["", "wrapper"])
@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "no exchange"])
def test_killed_at_any_step_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool, inner: str
) -> None:
    if not atomic:
        monkeypatch.setattr(volume, "_exchange", lambda *_: False)
    outcomes = []
    for step in range(40):
        staged_artifact = StagedArtifact(tmp_path / str(step), "raw")
        staged_artifact.root.mkdir()
        contents = {make(staged_artifact, b"old").digest(): b"old"}
        with monkeypatch.context() as patched, suppress(Killed):
            _kill_at(patched, step)
            make(staged_artifact, b"new", inner)
        staged_artifact.recover()
        manifest = find_manifest(staged_artifact.folder)
        assert manifest is not None, step
        content = contents.get(manifest.digest(), b"new")
        assert (staged_artifact.folder / "file").read_bytes() == content
        assert find_missing_file(staged_artifact.folder, manifest) is None
        outcomes.append(content)
        assert make(staged_artifact, b"new", inner) == find_manifest(
            staged_artifact.folder
        )  # and the next run gets through
        assert (staged_artifact.folder / "file").read_bytes() == b"new"
        assert not staged_artifact.work.exists()
    assert outcomes == sorted(outcomes, reverse=True)  # old up to some step, new from there on
    assert set(outcomes) == {b"old", b"new"}


def _kill_at(patched: pytest.MonkeyPatch, step: int) -> None:
    """Die just before change number `step` of the file system."""
    left = iter(range(step, -1, -1))

    def guarded(change: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*args: Any, **options: Any) -> Any:
            if next(left, 0) == 0:
                raise Killed
            return change(*args, **options)

        return guard

    for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (os, "unlink"), (os, "rmdir")):
        patched.setattr(owner, name, guarded(getattr(owner, name)))
    for name in ("_sync", "_sync_folder", "_exchange"):
        patched.setattr(volume, name, guarded(getattr(volume, name)))


def test_the_same_data_again_are_swapped_in_too(staged_artifact: StagedArtifact) -> None:
    make(staged_artifact, b"new")
    (staged_artifact.folder / "file").unlink()
    make(staged_artifact, b"new")
    assert (staged_artifact.folder / "file").exists()


def test_killed_while_flushing_resumes(staged_artifact: StagedArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr(volume, "_sync", lambda _: (_ for _ in ()).throw(Killed))
        make(staged_artifact, b"new")
    with Ledger(staged_artifact.ledger_path, b"new".hex()) as ledger:
        assert staged_artifact.resume(ledger)
        assert len(ledger) == 1


def test_a_deep_tree_is_deleted(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python's stack
        os.mkdir("d", dir_fd=descriptor)
        deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    remove_tree(tmp_path / "d")
    assert not any(tmp_path.iterdir())


def test_require_space(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "x")
    with pytest.raises(StorageError, match=r"x needs 1000000000000\.000 GB"):
        require_space(tmp_path, 10**21, "x")


def test_a_changed_index_is_reported(staged_artifact: StagedArtifact) -> None:
    manifest = make(staged_artifact, b"one")
    (staged_artifact.folder / "_larder" / "index.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="not what its manifest says"):
        list(read_index(staged_artifact.folder, manifest))


def test_the_name_of_a_volume(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "94 78 0:5 / /dev rw - devtmpfs udev rw\n"
        "95 78 254:0 /var/lib/docker/volumes/food11_local_baseline/_data /mnt rw master:1 - ext4 /dev/vda rw\n"
        "96 78 254:0 /home/me/data /data rw master:1 - ext4 /dev/vda rw\n"
    )
    assert volume_name(Path("/mnt"), table) == "food11_local_baseline"
    assert volume_name(Path("/data"), table) == ""
    assert volume_name(Path("/elsewhere"), table) == ""
    assert volume_name(Path("/mnt"), tmp_path / "no table") == ""
