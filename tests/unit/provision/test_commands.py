"""What is typed after `python -m provision`."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.__main__ import parser
from provision.ssh import Address, Ssh


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        (["echo", "-n", "a", "--yes"], "a --yes"),
        (["--", "echo", "-n", "a"], "a"),
        (["printf a && printf b"], "ab"),
        (["printf", "a", "&&", "printf", "b"], "ab"),
        ([], "shell"),
    ],
    ids=["options", "dashes", "one word", "words", "shell"],
)
def test_a_command_reaches_the_shell_of_the_server_as_with_openssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], typed: list[str], printed: str
) -> None:
    """A stand-in for OpenSSH does with its words what OpenSSH and sshd do, on this machine."""
    fake = tmp_path / "ssh"
    fake.write_text(
        '#!/bin/sh\nuntil [ "$1" = larder-lab ]; do shift; done\nshift\n'
        '[ "$1" = -- ] && shift\n[ $# = 0 ] && exec printf shell\nexec sh -c "$*"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    given = parser().parse_args(["ssh", *typed])
    assert Ssh(Address("203.0.113.7", "cc"), tmp_path / "lab").interactive(given.argv) == 0
    assert capfd.readouterr().out == printed
