"""The script that writes S3 keys on a server."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provision.host import keys
from provision.host_scripts import checkout_folder

SCRIPT = Path(keys.__file__)
KEYS = {
    "settings": {
        "S3_ENDPOINT_URL": "https://s3.example.org",
        "S3_BUCKET": "food",
        "AWS_ACCESS_KEY_ID": "access",
        "AWS_SECRET_ACCESS_KEY": "hidden",
    },
    "section": {"type": "s3", "endpoint": "https://s3.example.org", "access_key_id": "access", "secret": "hidden"},
}


def run(home: Path, *words: str, stdin: Any = KEYS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "--remote", "chi", "--stack", "lab", *words],
        input=stdin if isinstance(stdin, str) else json.dumps(stdin),
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={"HOME": str(home)},
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_files_are_written_once_and_only_for_their_owner(tmp_path: Path) -> None:
    (tmp_path / "larder").mkdir()
    env, rclone = tmp_path / "larder" / ".env", tmp_path / ".config" / "rclone" / "rclone.conf"
    first = run(tmp_path, "--env-file", "larder/.env")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"wrote the S3 keys: larder/.env\nwrote the S3 keys: {rclone}\n"
    assert env.read_text().splitlines() == [f"{name}={value}" for name, value in KEYS["settings"].items()]
    assert rclone.read_text().startswith("[chi]\ntype = s3\n") and "hidden" in rclone.read_text()
    assert mode(env) == mode(rclone) == 0o600
    second = run(tmp_path, "--env-file", "larder/.env")
    assert second.stdout == first.stdout.replace("wrote", "found")
    assert sorted(tmp_path.rglob("*.before-lab")) == []
    env.chmod(0o644)
    assert "wrote the S3 keys: larder/.env" in run(tmp_path, "--env-file", "larder/.env").stdout and mode(env) == 0o600


def test_a_user_s_lines_and_remotes_stay_and_other_keys_are_kept_in_a_copy(tmp_path: Path) -> None:
    rclone = tmp_path / ".config" / "rclone" / "rclone.conf"
    rclone.parent.mkdir(parents=True)
    theirs = "[mine]\ntype = local\n\n[chi]\ntype = s3\naccess_key_id = another\n"
    rclone.write_text(theirs)
    env = tmp_path / ".env"
    env.write_text("# mine\nexport LARDER_WORKERS=3\nAWS_ACCESS_KEY_ID=another\nS3_BUCKET='x'\n")
    before = env.read_text()
    ended = run(tmp_path, "--env-file", ".env")
    assert ended.returncode == 0, ended.stderr
    lines = env.read_text().splitlines()
    assert lines[:4] == ["# mine", "export LARDER_WORKERS=3", "AWS_ACCESS_KEY_ID=access", "S3_BUCKET=food"]
    assert "[mine]\ntype = local" in rclone.read_text() and "another" not in rclone.read_text()
    for path, text in ((tmp_path / ".env.before-lab", before), (rclone.with_name("rclone.conf.before-lab"), theirs)):
        assert path.read_text() == text and mode(path) == 0o600


def test_without_a_checkout_only_rclone_gets_the_keys(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [".config"]


@pytest.mark.parametrize(
    ("words", "stdin", "code", "says"),
    [
        (["--env-file", "none/.env"], KEYS, 3, "there is no folder none"),
        ([], "{", 2, "standard input doesn't hold the keys"),
        ([], {"settings": {"AWS_ACCESS_KEY_ID": "hidden"}, "section": {}}, 2, "standard input doesn't hold the keys"),
        ([], ["hidden"], 2, "standard input doesn't hold the keys"),
        (["--rclone-config", "encrypted"], KEYS, 2, "it is encrypted"),
        (["--rclone-config", "broken"], KEYS, 2, "in line 2"),
        (["--rclone-config", "binary"], KEYS, 3, "is not UTF-8 text"),
        (["--rclone-config", "file/rclone.conf"], KEYS, 3, "/file: File exists"),
    ],
)
def test_a_failure_names_cause_and_next_step_and_no_secret(
    tmp_path: Path, words: list[str], stdin: Any, code: int, says: str
) -> None:
    (tmp_path / "encrypted").write_text("RCLONE_ENCRYPT_V0:\nhidden\n")
    (tmp_path / "broken").write_text("[a]\nhidden\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "file").write_text("")
    ended = run(tmp_path, *words, stdin=stdin)
    assert ended.returncode == code and ended.stderr.startswith("error: ") and says in ended.stderr, ended.stderr
    assert "\n  next step: " in ended.stderr and "hidden" not in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("repository", "folder"),
    [
        ("https://example.org/group/larder.git", "larder"),
        ("https://user:token@example.org/larder/", "larder"),
        ("git@example.org:larder.git", "larder"),
        ("file:///srv/my.work", "my.work"),
    ],
)
def test_the_checkout_is_where_the_repository_script_clones_it(repository: str, folder: str) -> None:
    assert checkout_folder(repository) == folder
