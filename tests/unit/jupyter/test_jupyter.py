"""Checks before JupyterLab starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from larder.errors import ConfigurationError, ResourceError, StorageError
from larder.progress import Reporter
from services.jupyter import jupyter as stage
from services.jupyter.settings import JupyterSettings


def settings(tmp_path: Path, *flags: str) -> JupyterSettings:
    (tmp_path / "token").write_text("a-token\n")
    given = [f"--workspace={tmp_path / 'work'}", f"--token-file={tmp_path / 'token'}", f"--home={tmp_path / 'home'}"]
    return JupyterSettings.load("jupyter", [*given, *flags], {})


def write(path: Path, source: str, *, output: str = "") -> None:
    """Write a notebook of one cell; with an output, it was run. JupyterLab saves the source as lines."""
    import nbformat  # takes seconds, which processes that only collect tests need not spend
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    path.parent.mkdir(exist_ok=True)
    code = new_code_cell(source, outputs=[new_output("stream", text=output)] if output else [])  # type: ignore[no-untyped-call]
    nbformat.write(new_notebook(cells=[code]), path)  # type: ignore[no-untyped-call]


def test_missing_notebooks_are_copied_and_edited_ones_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for name in ("look", "demo", "compare"):
        write(ours / f"{name}.ipynb", f"print('{name}')\nof.larder()")
    write(theirs / "look.ipynb", "edited")
    write(theirs / "demo.ipynb", "print('demo')\nof.larder()", output="it was run")
    run = (theirs / "demo.ipynb").read_bytes()
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    assert "edited" in (theirs / "look.ipynb").read_text()
    assert (theirs / "demo.ipynb").read_bytes() == run, "with its outputs"
    assert (theirs / "compare.ipynb").read_bytes() == (ours / "compare.ipynb").read_bytes()
    stderr = capsys.readouterr().err
    assert "look.ipynb" in stderr
    assert "demo.ipynb" not in stderr
    assert "compare.ipynb" not in stderr


def test_a_release_renews_the_notebooks_that_nobody_has_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    names = ("look", "demo")
    for name in names:
        write(ours / f"{name}.ipynb", "of.larder(1)")
    theirs.mkdir()
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    assert capsys.readouterr().err == ""
    write(theirs / "look.ipynb", "of.larder(1)", output="it was run")
    write(theirs / "demo.ipynb", "of.larder(1)\nmy.own()")
    for release in (2, 3):
        for name in names:
            write(ours / f"{name}.ipynb", f"of.larder({release})")
        stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
        assert (theirs / "look.ipynb").read_bytes() == (ours / "look.ipynb").read_bytes()
        assert "my.own()" in (theirs / "demo.ipynb").read_text()
        renewed, kept = capsys.readouterr().err.splitlines()
        assert "look.ipynb in the workspace: this release's" in renewed
        assert "demo.ipynb in the workspace: kept" in kept


def test_notebooks_of_an_older_release_are_removed_unless_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for name in ("look", "demo"):
        write(ours / f"{name}.ipynb", "of.larder()")
    theirs.mkdir()
    write(theirs / "mine.ipynb", "of.larder()")
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    write(theirs / "look.ipynb", "of.larder()", output="it was run")
    write(theirs / "demo.ipynb", "my.own()")
    for name in ("look", "demo"):
        (ours / f"{name}.ipynb").unlink()
    write(ours / "1-images.ipynb", "of.larder()")
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    assert {path.name for path in theirs.glob("*.ipynb")} == {"1-images.ipynb", "demo.ipynb", "mine.ipynb"}
    assert "demo.ipynb, look.ipynb: not in this release" in capsys.readouterr().err
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    assert capsys.readouterr().err == ""
    assert "my.own()" in (theirs / "demo.ipynb").read_text()


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"cells": 3}', '{"cells": [{}]}'])
def test_what_is_no_notebook_is_kept(tmp_path: Path, content: str) -> None:
    """A damaged record, for example by an editor, only loses its entries."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write(ours / "look.ipynb", "of.larder()")
    (theirs / ".larder").mkdir(parents=True)
    (theirs / stage.COPIED_NOTEBOOKS).write_text(content)
    (theirs / "look.ipynb").write_text(content)
    stage.copy_notebooks(ours, theirs, Reporter("jupyter", "line"))
    assert (theirs / "look.ipynb").read_text() == content


def test_work_in_the_default_workspace_leaves_the_checkout_as_it_is() -> None:
    """Neither git nor the build of an image includes the workspace."""
    place = JupyterSettings.load("jupyter", [], {}).workspace
    tracked = subprocess.run(["git", "ls-files", place], cwd=stage.ROOT, capture_output=True, text=True, check=True)
    assert tracked.stdout == f"{place}/.gitkeep\n"  # the folder alone
    subprocess.run(["git", "check-ignore", "--quiet", place / "look.ipynb"], cwd=stage.ROOT, check=True)
    assert str(place) not in (stage.ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize("content", [None, "", " \n"], ids=["absent", "empty", "blank"])
def test_without_a_token_it_does_not_start(tmp_path: Path, content: str | None) -> None:
    chosen = settings(tmp_path)
    (tmp_path / "token").unlink() if content is None else (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigurationError, match="holds no token") as caught:
        stage.serve(chosen, Reporter("jupyter", "line"))
    assert "openssl rand" in caught.value.next_step


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    (tmp_path / "work").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"can't write to the workspace") as caught:
        stage.serve(chosen, Reporter("jupyter", "line"))
    assert "LARDER_WORKSPACE" in caught.value.next_step


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        chosen = settings(tmp_path, f"--port={server.getsockname()[1]}")
        with pytest.raises(ResourceError, match=f"is taken by .*process {os.getpid()}"):
            stage.serve(chosen, Reporter("jupyter", "line"))


@pytest.mark.parametrize(
    ("flag", "stderr"),
    [
        ("--bind=localhost", "must be an IPv4 address, such as 127.0.0.1"),
        ("--bind=::1", "must be an IPv4 address, such as 127.0.0.1"),
        ("--bind=300.0.0.1", "must be an IPv4 address, such as 127.0.0.1"),
        ("--port=99999", "must be 65535 or less"),
    ],
)
def test_where_it_cannot_listen(tmp_path: Path, flag: str, stderr: str) -> None:
    with pytest.raises(ConfigurationError, match=stderr):
        settings(tmp_path, flag)


def test_too_little_shared_memory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "MIN_SHARED_BYTES", 1 << 60)
    stage._warn_small_shared_memory(Reporter("jupyter", "line"))
    assert "LARDER_SHM_SIZE" in capsys.readouterr().err


def test_kernels_find_the_code_and_the_folders_and_not_the_token(tmp_path: Path) -> None:
    given = {"LARDER_RESULTS": "results", "JUPYTER_TOKEN": "another", "LARDER_LOG": "json", "S3_BUCKET": "food"}
    kept = stage._write_token(tmp_path / "home", "a-token")
    environment = stage.environment(settings(tmp_path), given, kept)
    assert environment["LARDER_RESULTS"] == str(Path("results").resolve())
    assert environment["LARDER_MOUNT_DIR"] == str(Path(".larder/mount").resolve())
    assert environment["PYTHONPATH"] == str(stage.ROOT)
    assert environment["S3_BUCKET"] == "food"
    assert "a-token" not in str(environment)
    assert "another" not in str(environment)
    assert kept.read_text() == "a-token", "the server takes every byte of it"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_errors_of_ours_are_short_in_a_cell() -> None:
    error = ConfigurationError("the bucket isn't set", next_step="set S3_BUCKET")
    assert error._render_traceback_() == ["error: the bucket isn't set", "  next step: set S3_BUCKET"]
