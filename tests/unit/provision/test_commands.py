"""The command line of `python -m provision`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from larder.progress import Reporter
from provision.__main__ import main, parser
from provision.ssh import SshAddress, SshClient
from provision.stack import Stack


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
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/known_hosts").write_text("larder-lab ssh-ed25519 AAAA\n")
    given = parser().parse_args(["ssh", *typed])
    assert SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab").interactive(given.argv) == 0
    assert capfd.readouterr().out == printed


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--caller", "caller", "plan"], "--caller: 'caller' is neither an address nor a network"),
        (["--caller", "home", "plan"], "--caller: 'home' is neither an address nor a network"),
        (["tunnel", "--port", "0"], "--port: '0' is not a number from 1 to 65535"),
        (["tunnel", "--local-port", "65536"], "--local-port: '65536' is not a number"),
        (["volume", "grow", "block", "--gib", "0"], "--gib: '0' is not a whole number above 0"),
        (["volume", "grow", "block", "--gib", "-3"], "--gib: '-3' is not a whole number above 0"),
        (["lease", "extend", "nan"], "nan hours"),
        (["lease", "extend", "inf"], "inf hours"),
        (["lease", "extend", "1e300"], "1e+300 hours"),
        (["lease", "extend", "-1"], "-1"),
    ],
)
def test_nonsense_values_are_refused_before_any_request_to_the_cloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    monkeypatch.setenv("LARDER_HOME", str(tmp_path))
    declaration = tmp_path / "provision.toml"
    declaration.write_text('name = "lab"\n')
    assert main(["--file", str(declaration), *typed]) == 2
    message = capfd.readouterr().err
    assert says in message and "next step:" in message


def test_callers_become_networks() -> None:
    assert parser().parse_args(["--caller", "192.0.2.7", "plan"]).caller == ("192.0.2.7/32",)
    several = parser().parse_args(["--caller", "here, 192.0.2.0/24,2001:db8::7", "plan"]).caller
    assert several == ("here", "192.0.2.0/24", "2001:db8::7/128")


@pytest.mark.parametrize(
    "typed",
    [
        "--file a.toml --adopt --caller 192.0.2.7 volume list",
        "volume --file a.toml list --adopt --caller 192.0.2.7",
        "volume list --file a.toml --adopt --caller 192.0.2.7",
        "--file b.toml --caller 192.0.2.8 volume list --file a.toml --adopt --caller=192.0.2.7",
        "status -f a.toml --adopt --caller 192.0.2.7/32",
        "ssh --file a.toml --adopt --caller 192.0.2.7 grep --file b.toml",
    ],
)
def test_common_options_may_stand_after_the_command(monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setenv("LARDER_CALLER", "192.0.2.9")
    given = parser().parse_args(typed.split())
    assert (given.file, given.adopt, given.caller) == (Path("a.toml"), True, ("192.0.2.7/32",))


def test_common_options_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CALLER", "192.0.2.9")
    given = parser().parse_args(["volume", "list"])
    assert (given.file, given.adopt, given.caller) == (Path("provision.toml"), False, ("192.0.2.9/32",))
    monkeypatch.delenv("LARDER_CALLER")
    assert parser().parse_args(["plan"]).caller == ()


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ("create", "provision: create server lab"),
        ("delete", "provision: delete server lab"),
        ("warning", "provision: warning: server lab"),
        ("ssh", "provision: server lab"),
    ],
)
def test_progress_lines_say_what_is_done(capfd: pytest.CaptureFixture[str], event: str, line: str) -> None:
    nothing: Any = None
    Stack(nothing, nothing, Reporter("provision", "line")).report(event, "server lab")
    assert capfd.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("way", "program"),
    [("", "python -m provision"), ("larder", "larder provision"), ("module", "python3 -m larder provision")],
)
def test_help_uses_the_user_s_front_door(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], way: str, program: str
) -> None:
    monkeypatch.setenv("LARDER_FRONT_DOOR", way)
    assert main(["volume", "grow"]) == 2
    assert f"next step: see `{program} volume grow --help`" in capfd.readouterr().err
