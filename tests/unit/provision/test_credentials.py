"""Files with secrets: other content stays, and files are replaced atomically."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError
from provision.credentials import (
    S3Keys,
    are_files_current,
    read_rclone_config,
    with_settings,
    without_settings,
    write_files,
    write_secret_file,
)
from provision.declaration import BucketSpec, CredentialsSpec

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
            write_secret_file(path, "after")
    assert real.read_text() == "before" and sorted(tmp_path.iterdir()) == [path, real]
    write_secret_file(path, "after")
    assert path.is_symlink() and real.read_text() == "after" and stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "line"),
    [("[a]\ntype = s3\nsecret_access_key: no-ones\n", 3), ("\nsecret_access_key = no-ones\n[a]\n", 2)],
    ids=["colon", "no section"],
)
def test_an_unreadable_configuration_is_reported_without_its_secrets(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "rclone.conf"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"in line {line}") as caught:
        read_rclone_config(path)
    assert "no-ones" not in str(caught.value) and str(path) in caught.value.what


def test_files_that_others_may_read_are_not_up_to_date(tmp_path: Path) -> None:
    keys = S3Keys("id", "access", "secret")
    spec = CredentialsSpec(
        env_file=tmp_path / ".env",
        rclone_config=tmp_path / "rclone.conf",
        rclone_remote="larder",
        s3_endpoint="https://s3.example.org",
    )
    declared = SimpleNamespace(credentials=spec, bucket=BucketSpec(name="data"))
    site = SimpleNamespace(endpoint=lambda service: "")
    stack = cast(Any, SimpleNamespace(declaration=declared, clouds=SimpleNamespace(objects=site), name="lab"))
    for path in (spec.env_file, spec.rclone_config):
        write_files(stack, keys)
        assert are_files_current(stack, keys)
        path.chmod(0o640)
        assert not are_files_current(stack, keys)
