"""Files for OpenSSH, and the meaning of its messages."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.errors import ConfigurationError, ServiceError
from larder.ssh_faults import classify_failure
from provision import host_scripts
from provision import ssh as ssh_module
from provision.ssh import SshAddress, SshClient, forget_host_key, known_hosts_in, require_free_local_port, with_timeout
from tests.conftest import free_ports


def met(folder: Path) -> None:
    """Record a host key in a state folder, as after the first contact."""
    folder.mkdir(parents=True, exist_ok=True)
    known_hosts_in(folder).write_text("larder-lab ssh-ed25519 AAAA\n")


def public_key(path: Path, kind: str = "ed25519") -> tuple[str, str]:
    """Create a server's key: its line, and its fingerprint as OpenSSH prints it."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    fingerprint = subprocess.check_output(["ssh-keygen", "-lf", f"{path}.pub"], text=True)
    return path.with_suffix(".pub").read_text().strip(), fingerprint.split()[1]


@pytest.fixture
def shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A stand-in for OpenSSH. Its server shows a host key, and it records its calls."""

    def shows(line: str) -> Path:
        commands, calls = tmp_path / "bin", tmp_path / "calls"
        commands.mkdir()
        (commands / "ssh").write_text(
            "#!/bin/sh\n"
            f'echo "$@" >>{calls}\n'
            'for word; do case "$word" in UserKnownHostsFile=*)\n'
            f'  file=$(echo "${{word#*=}}" | tr -d \'"\'); echo \'larder-lab {line}\' >"$file"; exit 255\n'
            "esac; done\n"
            "echo done\n"
        )
        (commands / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
        return calls

    return shows


def effective(ssh: SshClient) -> dict[str, str]:
    """Return the settings as OpenSSH reads them."""
    ssh.write_fragment()
    text = subprocess.check_output(["ssh", "-G", "-F", str(ssh.fragment), ssh.alias], text=True)
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def test_fragment_says_what_openssh_needs(tmp_path: Path) -> None:
    key = tmp_path / "my key"
    ssh = SshClient(
        SshAddress("203.0.113.7", "cc", 2222, key, ("ServerAliveInterval=3",)), tmp_path / "state of 100% lab"
    )
    seen = effective(ssh)
    assert ssh.alias == "larder-state-of-100-lab"
    assert (seen["hostname"], seen["user"], seen["port"]) == ("203.0.113.7", "cc", "2222")
    assert (seen["stricthostkeychecking"], seen["identitiesonly"]) in (("yes", "yes"), ("true", "yes"))
    assert seen["serveraliveinterval"] == "3"
    assert seen["identityfile"] == str(key)
    assert seen["userknownhostsfile"] == str(ssh.known_hosts)


def test_what_is_written_is_private_and_follows_the_address(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    effective(SshClient(SshAddress("203.0.113.7", "cc"), folder))
    changed = SshClient(SshAddress("203.0.113.8", "cc"), folder)
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
    fault = classify_failure(said)
    assert (fault.kind, cause in fault.cause) == (kind, True)
    assert fault.next_step


def test_port_in_use_is_reported() -> None:
    (port,) = free_ports(1)
    require_free_local_port(port)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=f"port {port}"):
        require_free_local_port(port)


def test_limit_is_kept_by_the_user_who_runs_the_command() -> None:
    assert with_timeout(["a", "b"], 2) == ["timeout", "--kill-after=10", "2", "a", "b"]
    assert with_timeout(["a"], 2, root=True) == ["sudo", "-n", "timeout", "--kill-after=10", "2", "a"]
    assert with_timeout(["a"], None, root=True) == ["sudo", "-n", "a"]


def test_host_key_is_forgotten_by_the_state_folder_alone(tmp_path: Path) -> None:
    known_hosts = SshClient(SshAddress("203.0.113.7", "cc"), tmp_path).known_hosts
    known_hosts.write_text("larder-x ssh-ed25519 AAAA\n")
    for _ in range(2):
        forget_host_key(tmp_path)
        assert not known_hosts.exists()


def test_scripts_run_where_nothing_in_tmp_may_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for OpenSSH and sudo run the command on this machine, and a script that can't be executed is sent."""
    scripts, commands = tmp_path / "host", tmp_path / "bin"
    for folder in (scripts, commands):
        folder.mkdir()
    (scripts / "volume.py").write_text('import json\nprint(json.dumps(["mounted at /srv"]))\n')
    (commands / "ssh").write_text('#!/bin/sh\nuntil [ "$1" = larder-lab ]; do shift; done\nshift\nexec sh -c "$*"\n')
    (commands / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setattr(host_scripts, "SCRIPTS", scripts)
    met(tmp_path / "lab")
    assert host_scripts.find_disk_users(SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab"), "abc") == [
        "mounted at /srv"
    ]


def test_lost_connection_is_reported_with_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = tmp_path / "ssh"
    lost.write_text("#!/bin/sh\nexit 255\n")
    lost.chmod(0o755)
    met(tmp_path / "lab")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ServiceError, match=r"connection was lost, while starting `volume\.py uses --serial abc`"):
        host_scripts.find_disk_users(SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab"), "abc")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_first_contact_records_the_verified_host_key_before_login(
    tmp_path: Path, shows: Callable[[str], Path], kind: str
) -> None:
    line, fingerprint = public_key(tmp_path / "host", kind)
    calls = shows(line)
    asked: list[int] = []

    def vouched() -> frozenset[str]:
        asked.append(1)
        return frozenset([fingerprint, "SHA256:" + "A" * 43])

    ssh = SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab", vouched)
    for _ in range(2):
        assert ssh.run(["true"]).stdout == "done\n"
    first, *later = calls.read_text().splitlines()
    assert "PreferredAuthentications=none" in first
    assert len(later) == 2 and not any("PreferredAuthentications" in call for call in later)
    assert line.split()[1] in ssh.known_hosts.read_text() and asked == [1]


@pytest.mark.parametrize("how", ["run", "wait", "shell", "tunnel"])
def test_a_host_key_that_differs_from_the_console_log_stops_the_login(
    tmp_path: Path, shows: Callable[[str], Path], how: str
) -> None:
    line, fingerprint = public_key(tmp_path / "host")
    calls = shows(line)
    ssh = SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab", lambda: frozenset(["SHA256:" + "A" * 43]))
    ways: dict[str, Callable[[], object]] = {
        "run": lambda: ssh.run(["true"]),
        "wait": lambda: ssh.wait_for_login(60),
        "shell": ssh.interactive,
        "tunnel": lambda: ssh.tunnel(free_ports(1)[0], 8888),
    }
    for _ in range(2):  # it isn't trusted the second time either
        with pytest.raises(ConfigurationError, match="console log has other ones") as caught:
            ways[how]()
        assert fingerprint in caught.value.what and "don't continue" in caught.value.next_step
    assert all("PreferredAuthentications=none" in call for call in calls.read_text().splitlines())
    assert not ssh.known_hosts.exists()


def test_without_a_console_the_first_key_is_trusted(tmp_path: Path, shows: Callable[[str], Path]) -> None:
    line, _ = public_key(tmp_path / "host")
    shows(line)
    ssh = SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab")
    assert ssh.run(["true"]).code == 0
    assert line.split()[1] in ssh.known_hosts.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"host": "203.0.113.7\n    ProxyCommand touch /tmp/x"},
        {"host": "-oProxyCommand=x"},
        {"host": "a b"},
        {"host": "fe80::1%$(x)"},
        {"host": ""},
        {"host": "%h"},
        {"host": "x" * 300},
        {"user": "cc\nProxyCommand x"},
        {"user": "-oProxyCommand=x"},
        {"user": "a b"},
        {"user": "%u"},
        {"user": ""},
        {"user": "cc\n"},
        {"host": "203.0.113.7\n"},
        {"port": 0},
        {"port": 65536},
        {"key": Path("/home/me/key\nProxyCommand x")},
        {"options": ("ProxyJump=a\nProxyCommand x",)},
        {"options": ("ProxyJump a",)},
    ],
    ids=repr,
)
def test_no_address_and_no_user_becomes_an_option_of_openssh(change: dict[str, object]) -> None:
    given: dict[str, object] = {"host": "203.0.113.7", "user": "cc"}
    with pytest.raises(ConfigurationError, match="the configuration has a fault"):
        SshAddress(**(given | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "server.example.org", "localhost"])
def test_addresses_and_names_reach_openssh_as_they_are(tmp_path: Path, host: str) -> None:
    assert effective(SshClient(SshAddress(host, "cc"), tmp_path / "lab"))["hostname"] == host


def test_what_a_command_prints_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(ssh_module, "MAX_OUTPUT_BYTES", 1 << 20)
    met(tmp_path / "lab")
    with pytest.raises(ServiceError, match="printed more than 1 MiB"):
        SshClient(SshAddress("203.0.113.7", "cc"), tmp_path / "lab").run(["true"])
