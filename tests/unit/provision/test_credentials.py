"""Files with secrets: other content stays, and files are replaced atomically."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import ConfigurationError
from provision.credentials import S3Keys, are_files_current, without_settings, write_files
from provision.declaration import BucketSpec, CredentialsSpec
from provision.host.keys import with_settings, write_secret_file

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


def test_what_a_killed_write_left_is_removed_since_it_holds_the_secret(tmp_path: Path) -> None:
    path, old, new, other = (
        tmp_path / name for name in (".env", "..env.abcd1234", "..env.wxyz9876", ".env.before-lab")
    )
    for file in (old, new, other):
        file.write_text("secret")
        os.utime(file, (0, 0) if file is not new else None)
    write_secret_file(path, "after")
    assert sorted(tmp_path.iterdir()) == sorted([path, new, other])  # another run may be writing the new one


@pytest.mark.parametrize(
    ("text", "line"),
    [("[a]\ntype = s3\nsecret_access_key: no-ones\n", 3), ("\nsecret_access_key = no-ones\n[a]\n", 2)],
    ids=["colon", "no section"],
)
def test_an_unreadable_configuration_is_reported_without_its_secrets(tmp_path: Path, text: str, line: int) -> None:
    stack, spec, keys = stack_with_keys(tmp_path)
    path = spec.rclone_config
    path.write_text(text)
    for use in (are_files_current, write_files):
        with pytest.raises(ConfigurationError, match=f"in line {line}") as caught:
            use(stack, keys)
    assert not spec.env_file.exists(), "both files stay as they are"
    assert "no-ones" not in str(caught.value) and str(path) in caught.value.what


def stack_with_keys(folder: Path) -> tuple[Any, CredentialsSpec, S3Keys]:
    """Return a stack, where its files of keys are, and the keys."""
    spec = CredentialsSpec(
        env_file=folder / ".env",
        rclone_config=folder / "rclone.conf",
        rclone_remote="larder",
        s3_endpoint="https://s3.example.org",
    )
    declared = SimpleNamespace(credentials=spec, bucket=BucketSpec(name="data"))
    clouds = SimpleNamespace(objects=SimpleNamespace(endpoint=lambda service: ""))
    stack = SimpleNamespace(declaration=declared, clouds=clouds, name="lab", report=lambda event, message: None)
    return cast(Any, stack), spec, S3Keys("id", "access", "secret")


def test_files_that_others_may_read_are_not_up_to_date(tmp_path: Path) -> None:
    stack, spec, keys = stack_with_keys(tmp_path)
    for path in (spec.env_file, spec.rclone_config):
        write_files(stack, keys)
        assert are_files_current(stack, keys)
        path.chmod(0o640)
        assert not are_files_current(stack, keys)
