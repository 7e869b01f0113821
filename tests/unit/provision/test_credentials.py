"""Files with secrets: what else stands in them stays, and they are whole or as before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from larder.errors import ConfigurationError
from provision.credentials import parsed, replace, with_settings, without_settings

VALUES = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=s\n"),
        ("# mine\nX=1", "# mine\nX=1\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=s\n"),
        ("export AWS_ACCESS_KEY_ID=old\nX=1\n", "AWS_ACCESS_KEY_ID=a\nX=1\nAWS_SECRET_ACCESS_KEY=s\n"),
        ("#AWS_ACCESS_KEY_ID=\n", "#AWS_ACCESS_KEY_ID=\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=s\n"),
    ],
    ids=["new", "kept", "replaced", "comment"],
)
def test_settings_are_put_into_env(before: str, after: str) -> None:
    assert with_settings(before, VALUES) == after
    assert with_settings(after, VALUES) == after


def test_only_our_settings_are_taken_out() -> None:
    text = "X=1\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=another\n"
    assert without_settings(text, VALUES) == "X=1\nAWS_SECRET_ACCESS_KEY=another\n"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / ".env", tmp_path / "real"
    real.write_text("before")
    real.chmod(0o644)
    path.symlink_to(real)

    def fails(descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="full"):
            replace(path, "after")
    assert real.read_text() == "before" and sorted(tmp_path.iterdir()) == [path, real]
    replace(path, "after")
    assert path.is_symlink() and real.read_text() == "after" and stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "line"),
    [("[a]\ntype = s3\nsecret_access_key: no-ones\n", 3), ("\nsecret_access_key = no-ones\n[a]\n", 2)],
    ids=["colon", "no section"],
)
def test_a_configuration_that_is_not_understood_is_told_without_its_secrets(
    tmp_path: Path, text: str, line: int
) -> None:
    path = tmp_path / "rclone.conf"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"in line {line}") as told:
        parsed(path)
    assert "no-ones" not in str(told.value) and str(path) in told.value.what
