"""Host keys in a console log."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provision import host_keys

ONE, TWO, THREE = (f"SHA256:{letter * 43}" for letter in "aB+")


def keys(*lines: str, of: str = "FINGERPRINTS") -> str:
    return "\n".join([f"-----BEGIN SSH HOST KEY {of}-----", *lines, f"-----END SSH HOST KEY {of}-----", ""])


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (keys(f"256 {ONE} root@vm (ECDSA)", f"3072 {TWO} root@vm (RSA)"), {ONE, TWO}),
        (keys(f"<14>Nov 28 10:00:00 cloud-init: 256 {ONE} root@vm (ED25519)"), {ONE}),
        (keys(f"[   12.345678] cloud-init[812]: 256 {ONE} no comment (ED25519)"), {ONE}),
        (keys(f"256 {ONE} root@vm (ED25519)").replace("\n", "\r\n"), {ONE}),
        (keys(f"256 {ONE} root@vm (ED25519)") + "login: \n" + keys(f"256 {TWO} root@vm (ED25519)"), {TWO}),
        (keys(f"256 {ONE} root@vm (ED25519)") + "-----BEGIN SSH HOST KEY FINGERPRINTS-----\n", {ONE}),
        ("", set()),
        ("Linux version 6.1\nlogin: \n", set()),
        (f"256 {ONE} root@vm (ED25519)\n", set()),
        (f"-----BEGIN SSH HOST KEY FINGERPRINTS-----\n256 {ONE} root@vm (ED25519)\n", set()),
        (f"256 {ONE} root@vm\n-----END SSH HOST KEY FINGERPRINTS-----\n", set()),
        (keys("256 MD5:00:11:22 root@vm (RSA)"), set()),
        (keys(f"256 {ONE}a root@vm (ED25519)", f"256 {ONE[:-1]} root@vm", f"x256 {ONE} root@vm"), set()),
        (keys("ssh-ed25519 AAAA root@vm", of="KEYS"), set()),
        (keys("ssh-ed25519 " + "A" * 68 + " root@vm", of="KEYS"), set()),
    ],
    ids=["two", "syslog", "kernel", "crlf", "of the last boot", "a second block that has only begun", "nothing",
         "no keys", "no marks", "no end", "no begin", "md5", "other lengths", "no key", "another key's form"],
)  # fmt: skip
def test_fingerprints_are_those_between_the_marks(log: str, found: set[str]) -> None:
    assert host_keys.read_console_fingerprints(log) == found


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_has_the_fingerprint_that_openssh_gives_it(tmp_path: Path, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True)
    line = (tmp_path / "key.pub").read_text().strip()
    fingerprints = {subprocess.check_output(["ssh-keygen", "-lf", tmp_path / "key.pub"], text=True).split()[1]}
    assert host_keys.read_console_fingerprints(keys(line, of="KEYS")) == fingerprints
    assert (
        host_keys.read_known_hosts_fingerprints(f"# comment\n\nlarder-lab {line}\n|1|a|b {line}\nbad\n") == fingerprints
    )


def test_a_log_of_any_length_is_read_in_part() -> None:
    many = keys(*(f"256 SHA256:{number:043d} root@vm" for number in range(100)))
    assert len(host_keys.read_console_fingerprints(many)) <= 16
    flood = "-----BEGIN SSH HOST KEY KEYS-----" * 100_000 + "\n"
    assert host_keys.read_console_fingerprints(flood) == frozenset()
    assert host_keys.read_console_fingerprints(keys(f"256 {ONE} root@vm") + flood) == frozenset()
    assert host_keys.read_console_fingerprints(flood + keys(f"256 {ONE} root@vm")) == {ONE}


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", False),
        ("login:", False),
        ("Cloud-init v. 24.1.3 running 'init-local' at …", True),
        ("Cloud-init v. 24.1.3 running 'init'\nCloud-init v. 24.1.3 finished at …", False),
        ("Cloud-init v. 24.1.3 finished at …\nCloud-init v. 24.1.3 running 'init'", True),
    ],
    ids=["nothing", "no cloud-init", "running", "finished", "running again"],
)
def test_keys_may_come_while_cloud_init_runs(log: str, expected: bool) -> None:
    assert host_keys.may_still_appear(log) == expected
