"""What is written for OpenSSH, and what its words mean."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from larder.errors import ConfigurationError, ServiceError
from provision import hosts
from provision.ssh import Address, Ssh, check_free, fault_of, forget_host_key, wrapped
from tests.conftest import free_ports


def effective(ssh: Ssh) -> dict[str, str]:
    """The settings as OpenSSH itself reads them."""
    ssh.write_fragment()
    text = subprocess.check_output(["ssh", "-G", "-F", str(ssh.fragment), ssh.alias], text=True)
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_fragment_says_what_openssh_needs(tmp_path: Path) -> None:
    key = tmp_path / "my key"
    ssh = Ssh(Address("203.0.113.7", "cc", 2222, key, ("ServerAliveInterval=3",)), tmp_path / "state of 100% lab")
    seen = effective(ssh)
    assert ssh.alias == "larder-state-of-100-lab"
    assert (seen["hostname"], seen["user"], seen["port"]) == ("203.0.113.7", "cc", "2222")
    assert (seen["stricthostkeychecking"], seen["identitiesonly"]) == ("accept-new", "yes")
    assert seen["serveraliveinterval"] == "3"
    assert seen["identityfile"] == str(key)
    assert seen["userknownhostsfile"] == str(ssh.known_hosts)


def test_what_is_written_is_private_and_follows_the_address(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    effective(Ssh(Address("203.0.113.7", "cc"), folder))
    changed = Ssh(Address("203.0.113.8", "cc"), folder)
    assert effective(changed)["hostname"] == "203.0.113.8"
    assert [path.stat().st_mode & 0o77 for path in (folder, *folder.iterdir())] == [0, 0, 0]


@pytest.mark.parametrize(
    ("said", "kind", "cause"),
    [
        ("ssh: connect to host 203.0.113.7 port 22: Connection refused", ServiceError, "refused"),
        ("ssh: connect to host 203.0.113.7 port 22: Connection timed out", ServiceError, "timed out"),
        ("ssh: connect to host 203.0.113.7 port 22: No route to host", ServiceError, "no answer"),
        ("Connection to 203.0.113.7 closed by remote host.", ServiceError, "connection was lost"),
        ("client_loop: send disconnect: Broken pipe", ServiceError, "connection was lost"),
        ("Timeout, server 203.0.113.7 not responding.", ServiceError, "connection was lost"),
        ("kex_exchange_identification: read: Connection reset by peer", ServiceError, "connection was lost"),
        ("", ServiceError, "connection was lost"),
        ("cc@203.0.113.7: Permission denied (publickey).", ConfigurationError, "refused the key"),
        ("ssh: Could not resolve hostname vm: Name or service not known", ConfigurationError, "name of the server"),
        ("Host key verification failed.", ConfigurationError, "another one than at first contact"),
        ('Load key "/home/me/key": invalid format', ConfigurationError, "can't be read"),
    ],
)
def test_openssh_s_words_have_a_cause_and_a_next_step(said: str, kind: type, cause: str) -> None:
    fault = fault_of(said)
    assert (fault.kind, cause in fault.cause) == (kind, True)
    assert fault.next_step


def test_port_in_use_is_told() -> None:
    (port,) = free_ports(1)
    check_free(port)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=f"port {port}"):
        check_free(port)


def test_limit_is_kept_by_the_user_who_runs_the_command() -> None:
    assert wrapped(["a", "b"], 2) == ["timeout", "--kill-after=10", "2", "a", "b"]
    assert wrapped(["a"], 2, root=True) == ["sudo", "-n", "timeout", "--kill-after=10", "2", "a"]
    assert wrapped(["a"], None, root=True) == ["sudo", "-n", "a"]


def test_host_key_is_forgotten_by_the_state_folder_alone(tmp_path: Path) -> None:
    known_hosts = Ssh(Address("203.0.113.7", "cc"), tmp_path).known_hosts
    known_hosts.write_text("larder-x ssh-ed25519 AAAA\n")
    for _ in range(2):
        forget_host_key(tmp_path)
        assert not known_hosts.exists()


def test_scripts_run_where_nothing_in_tmp_may_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for OpenSSH and sudo run the command on this machine, and a script that can't be executed is sent."""
    scripts, commands = tmp_path / "host", tmp_path / "bin"
    for folder in (scripts, commands):
        folder.mkdir()
    (scripts / "volume.sh").write_text("#!/usr/bin/env bash\necho '[\"mounted at /srv\"]'\n")
    (commands / "ssh").write_text('#!/bin/sh\nuntil [ "$1" = larder-lab ]; do shift; done\nshift\nexec sh -c "$*"\n')
    (commands / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setattr(hosts, "SCRIPTS", scripts)
    assert hosts.users(Ssh(Address("203.0.113.7", "cc"), tmp_path / "lab"), "abc") == ["mounted at /srv"]


def test_lost_connection_is_told_with_the_script_that_was_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "ssh"
    lost.write_text("#!/bin/sh\nexit 255\n")
    lost.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ServiceError, match=r"connection was lost, while `volume\.sh uses --serial abc` was to run"):
        hosts.users(Ssh(Address("203.0.113.7", "cc"), tmp_path / "lab"), "abc")
