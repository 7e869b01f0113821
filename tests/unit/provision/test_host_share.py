"""The share script's rules, without an NFS server: its options, what is mounted, its line in fstab, its errors."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.host import share, volume
from provision.host.share import Mount, Options
from provision.host.volume import Ended, FstabLine, VolumeError

SCRIPT = Path(share.__file__)
EXPORT = "10.0.0.7:/shares/a"
OPTIONS = Options("mount", "/mnt/share", EXPORT, "id-1")
MOUNTS = (
    "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "90 22 0:52 / /mnt/share rw,relatime shared:60 - nfs4 10.0.0.7:/shares/a rw,vers=4.1,hard\n"
    "91 22 0:53 / /mnt/a\\040b rw - tmpfs none rw\n"
    "a line of another form\n"
)


def test_options_have_defaults() -> None:
    words = ["mount", "--export", EXPORT + "/", "--mount", "/mnt/share"]
    assert share.parse_options(words) == Options("mount", "/mnt/share", EXPORT)
    more = share.parse_options([*words, "--id", "id-1", "--give-to", "cc", "--wait", "5"])
    assert (more.id, more.user, more.seconds) == ("id-1", "cc", 5)
    assert share.parse_options(["mount", "--export", "nfs:/", "--mount", "/mnt"]).export == "nfs:/"
    assert share.parse_options(["unmount", "--mount", "/mnt"]) == Options("unmount", "/mnt")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "no command"),
        ("look --mount /mnt", "unknown command 'look'"),
        (f"mount --export {EXPORT}", "mount needs --mount"),
        ("mount --mount /mnt", "mount needs --export"),
        ("unmount", "unmount needs --mount"),
        (f"mount --export {EXPORT} --mount", "--mount lacks its value"),
        (f"mount --export {EXPORT} --mount mnt", "no absolute path"),
        (f"mount --export {EXPORT} --mount /mnt/../etc", "the name . or .."),
        ("mount --export 10.0.0.7:/../a --mount /mnt", "is no HOST:PATH"),
        ("mount --export -o:/a --mount /mnt", "is no HOST:PATH"),
        (f"mount --export {EXPORT} --mount /mnt --id a,b", "is no id"),
        (f"mount --export {EXPORT} --mount /mnt --wait soon", "is no number of seconds"),
        (f"mount --export {EXPORT} --mount /mnt --bind x", "unknown option --bind"),
    ],
)
def test_a_wrong_command_line_is_refused(words: str, says: str) -> None:
    with pytest.raises(VolumeError, match=re.escape(says)) as caught:
        share.parse_options(words.split())
    assert caught.value.code == 2


@given(st.text(alphabet=st.sampled_from("ab1.:/[]-_ \t\n\\,#'\"$();@%é"), max_size=24))
def test_an_export_is_one_word_without_syntax_of_fstab_or_a_shell(text: str) -> None:
    parsed = share.parse_export(text)
    if parsed is not None:
        assert re.fullmatch(r"[A-Za-z0-9._+=@~/:\[\]-]+", text) and not text.startswith("-")
        assert parsed[1].startswith("/") and not {".", ".."} & set(parsed[1].split("/"))
        line = FstabLine(Options("mount", "/mnt", share.without_slash(text), "1").line)
        assert len(line.fields) == 6 and line.fields[0] == share.without_slash(text)


def test_what_is_mounted_is_read_from_the_kernel() -> None:
    mounts = share.parse_mounts(MOUNTS)
    assert mounts[1] == Mount("0:52", "/mnt/share", "nfs4", EXPORT) and mounts[1].is_nfs
    assert [mount.target for mount in mounts] == ["/", "/mnt/share", "/mnt/a b"] and not mounts[2].is_nfs
    root = share.mounted_at("/")
    assert root is not None and not root.is_nfs and share.mounted_at("/no/such/folder") is None


def test_our_line_has_what_a_boot_needs() -> None:
    source, target, kind, options, *numbers = OPTIONS.line.split(" ")
    assert (source, target, kind, numbers) == (EXPORT, "/mnt/share", "nfs", ["0", "0"])
    wanted = {"nfsvers=4.1", "proto=tcp", "_netdev", "nofail", "x-systemd.mount-timeout=90s", "x-larder-share=id-1"}
    assert wanted <= {*options.split(",")} and "soft" not in options.split(",")


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        (OPTIONS.line, True),
        (OPTIONS.line.replace("/mnt/share", "/mnt/former"), True),
        (OPTIONS.line.replace("id-1", "id-2"), True),  # another share of ours at this mount point
        (OPTIONS.line.replace("id-1", "id-2").replace("/mnt/share", "/mnt/other"), False),
        (OPTIONS.line.replace("x-larder-share", "x-other"), False),
        (f"# {OPTIONS.line}", False),
        (f"{EXPORT} /mnt/share nfs defaults", False),
        ("UUID=1 /mnt/share ext4 defaults,x-larder=1 0 2", False),
        ("", False),
    ],
)
def test_only_our_lines_in_fstab_are_ours(line: str, ours: bool) -> None:
    assert share.is_ours(FstabLine(line), OPTIONS) is ours


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["UUID=1 /mnt/share ext4 defaults 0 2"], "a line of somebody else"),
        ([f"{EXPORT} /srv nfs defaults 0 0"], "a line of somebody else"),
        (["UUID=1 /mnt/share ext4 defaults,x-larder=1 0 2"], "a line of somebody else"),
        (["UUID=1 / ext4 defaults 0 1", OPTIONS.line], ""),
    ],
    ids=["mount point", "export", "volume", "ours"],
)
def test_a_line_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], says: str
) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(volume, "FSTAB", fstab)
    monkeypatch.setattr(volume, "reload_systemd", lambda: None)
    if says:
        with pytest.raises(VolumeError, match=says):
            share.check_fstab(OPTIONS)
        return
    share.check_fstab(OPTIONS)
    moved = Options("mount", "/mnt/moved", "10.0.0.8:/b", "id-1")
    share.write_fstab(moved)
    assert fstab.read_text() == f"{lines[0]}\n{moved.line}\n"


@pytest.mark.parametrize(
    ("said", "code", "says"),
    [
        ("mount.nfs: access denied by server while mounting 10.0.0.7:/shares/a", 3, "access rules"),
        (
            "mount.nfs: mounting 10.0.0.7:/a failed, reason given by server: No such file or directory",
            3,
            "share exists",
        ),
        ("mount.nfs: Protocol not supported", 3, "NFS 4.1"),
        ("mount.nfs: Stale file handle", 3, "deleted or made again"),
        ("mount.nfs: Connection reset by peer", 5, "run this again"),
        ("", 5, "run this again"),
    ],
)
def test_a_refused_mount_has_its_reason(said: str, code: int, says: str) -> None:
    error = share.mount_error(OPTIONS, said)
    assert error.code == code and says in error.next_step and (said or "no reason is given") in error.what


def test_a_server_that_nobody_answers_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(share, "PORT", port)
        share.connect("127.0.0.1:/a")
    with pytest.raises(VolumeError, match=f"127.0.0.1, port {port}, can't be reached.*: Connection refused") as caught:
        share.connect("127.0.0.1:/a")
    assert caught.value.code == 5 and "usage_type" in caught.value.next_step
    with pytest.raises(VolumeError, match=r"no\.such\.host\.invalid, port"):
        share.connect("no.such.host.invalid:/a")


def test_a_program_that_waits_for_a_dead_server_is_ended() -> None:
    ended = share.limited(1, "sh", "-c", "echo begun; trap '' TERM; sleep 4711 & wait")
    assert (ended.code, ended.said) == (share.TIMED_OUT, "begun")
    assert "sleep 4711" not in subprocess.check_output(["ps", "-eo", "args"], text=True).splitlines()
    ended = share.limited(9, "sh", "-c", "echo no >&2; exit 32")
    assert (ended.code, ended.said) == (32, "no")


@pytest.mark.parametrize("said", ["mount.nfs: access denied by server", "mount.nfs: Protocol not supported"])
def test_only_a_denial_is_tried_again(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """A rule that Manila has just made may not have reached the NFS server yet."""
    tries: list[tuple[str, ...]] = []

    def limited(seconds: int, *argv: str) -> Ended:
        tries.append(argv)
        return Ended(0 if len(tries) == 3 else 32, "", said)

    monkeypatch.setattr(share, "limited", limited)
    monkeypatch.setattr(share.time, "sleep", lambda seconds: None)
    if "denied" in said:
        share.mount_now(OPTIONS)
        assert len(tries) == 3 and tries[0][-2:] == (EXPORT, "/mnt/share")
        return
    with pytest.raises(VolumeError, match="Protocol not supported"):
        share.mount_now(OPTIONS)
    assert len(tries) == 1


def test_users_are_found_without_asking_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    process = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "open")
    monkeypatch.setattr(volume, "containers", list)
    try:
        users = share.list_users(Mount("0:52", str(tmp_path), "nfs4", EXPORT))
        assert users == [f"process {process.pid} (sleep)"]
        assert share.list_users(Mount("0:52", f"{tmp_path}/op", "nfs4", EXPORT)) == []
    finally:
        process.kill()
        process.wait()


def test_a_container_that_sees_the_share_is_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "containers", lambda: [(7, "train"), (8, "other")])
    seen: dict[str, Any] = {"7": share.parse_mounts(MOUNTS), "8": []}
    monkeypatch.setattr(share, "read_mounts", seen.__getitem__)
    monkeypatch.setattr(volume, "processes", list)
    assert share.list_users(Mount("0:52", "/mnt/share", "nfs4", EXPORT)) == ["container train"]


def test_it_needs_only_the_standard_library_of_python_3_9_and_volume_py(tmp_path: Path) -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - {"provision", "volume"} <= set(sys.stdlib_module_names)
    for path in (SCRIPT, Path(volume.__file__)):
        shutil.copy(path, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-I", tmp_path / "share.py", "mount"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: mount needs --mount\n  next step: share.py --help lists commands and options\n"


@pytest.mark.parametrize("python", ["python3.9", "python3.10", "python3.13"])
def test_other_pythons_start_it(python: str) -> None:
    places = [*os.get_exec_path(), *map(str, Path.home().glob(f".pyenv/versions/{python[6:]}*/bin"))]
    interpreter = shutil.which(python, path=os.pathsep.join(reversed(places)))
    if interpreter is None:
        return  # the test before looks for newer syntax and modules
    ended = subprocess.run([interpreter, "-I", SCRIPT, "mount"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "") and ended.stderr.startswith("error: mount needs --mount")
