"""Host set-up over SSH where no disk is needed: the connection, packages, a repository, and what goes wrong on the way.

One server, in a container, serves all tests of this module.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.progress import Reporter
from provision import host_scripts
from provision import ssh as ssh_module
from provision.host_scripts import Export, HostSetup
from provision.ssh import SshAddress, SshClient
from tests.conftest import free_ports, wait_until
from tests.openstack.container import ServerContainer
from tests.openstack.disks import missing
from tests.openstack.guest import BOOT_SECONDS, make_key
from tests.openstack.remote import NOTHING, in_a_process, marks, on_server

TOKEN = "token-of-nobody"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def server(key: Path) -> Iterator[ServerContainer]:
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        missing("the server runs in a container, and no container engine answers (docker info)")
    made = ServerContainer(key.with_suffix(".pub").read_text().strip())
    yield made
    made.close()


@pytest.fixture(scope="module")
def ssh(server: ServerContainer, key: Path, tmp_path_factory: pytest.TempPathFactory) -> SshClient:
    made = SshClient(SshAddress(server.address, "cc", key=key), tmp_path_factory.mktemp("state") / "server")
    made.wait_for_login(BOOT_SECONDS)
    return made


@pytest.fixture
def another(ssh: SshClient, tmp_path: Path) -> Callable[..., SshClient]:
    """The same server, reached in another way."""
    return lambda **changes: SshClient(SshAddress(**{**vars(ssh.address), **changes}), tmp_path / "other server")


# --- the connection ---------------------------------------------------------------------------------------------------


def test_command_gets_its_arguments_and_input_and_returns_its_exit_code(ssh: SshClient) -> None:
    ended = ssh.run(["sh", "-c", 'echo "$1"; cat; echo bad >&2; exit 7', "sh", "a  'b' $HOME"], stdin=b"in")
    assert (ended.code, ended.stdout, ended.stderr) == (7, "a  'b' $HOME\nin", "bad\n")


def test_ssh_by_hand_works_with_the_fragment_included(ssh: SshClient, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f'Include "{ssh.fragment}"\n')
    assert subprocess.check_output(["ssh", "-F", str(config), ssh.alias, "whoami"], text=True) == "cc\n"


def test_changed_host_key_is_refused_with_what_to_do(ssh: SshClient, another: Callable[..., SshClient]) -> None:
    other = another()
    other.wait_for_login(60)
    theirs = re.sub(
        r"AAAA\S+", ssh.address.key.with_suffix(".pub").read_text().split()[1], other.known_hosts.read_text()
    )
    other.known_hosts.write_text(theirs)
    with pytest.raises(ConfigurationError, match="host key is another one than at first contact") as told:
        other.wait_for_login(60)
    assert str(other.known_hosts) in told.value.next_step
    ssh_module.forget_host_key(other.state_folder)
    other.wait_for_login(60)


def test_wrong_key_and_wrong_user_are_told(another: Callable[..., SshClient], tmp_path: Path) -> None:
    for other in (another(key=make_key(tmp_path)), another(user="nobody-here")):
        with pytest.raises(ConfigurationError, match="refused the key, or the user") as told:
            other.run(["true"])
        assert str(other.address.key) in told.value.next_step


def test_missing_or_readable_key_file_is_reported(another: Callable[..., SshClient], key: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="private key can't be read"):
        another(key=tmp_path / "none").run(["true"])
    loose = tmp_path / "loose"
    loose.write_bytes(key.read_bytes())
    loose.chmod(0o644)
    with pytest.raises(ConfigurationError, match="others may read the private key"):
        another(key=loose).run(["true"])


def test_refused_and_unknown_addresses_are_reported(another: Callable[..., SshClient]) -> None:
    with pytest.raises(ServiceError, match="connection was refused"):
        another(port=free_ports(1)[0]).wait_for_login(1)
    with pytest.raises(ConfigurationError, match="name of the server isn't known"):
        another(host="no-such-server.invalid").wait_for_login(60)


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_step_that_takes_too_long_is_ended_here_and_there(ssh: SshClient, root: bool) -> None:
    with pytest.raises(ServiceError, match="did not end within 2 s"):
        ssh.run(["sh", "-c", "sleep 4711; true"], seconds=2, root=root)
    wait_until(lambda: ssh.run(["pgrep", "-f", "^sleep 4711"]).code == 1, "the server ended it")


def test_step_that_must_not_be_cut_goes_on_there(ssh: SshClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module, "CONNECT_SECONDS", 3)
    with pytest.raises(ServiceError, match="did not end within 3 s, and still runs there"):
        ssh.run(["sleep", "4712"], seconds=3, root=True, cut=False)
    assert on_server(ssh, "pgrep -f '^sleep 4712'; pkill -f '^sleep 4712'")


def test_tunnel_leads_to_the_servers_loopback_until_it_is_interrupted(ssh: SshClient) -> None:
    port = free_ports(1)[0]
    process = in_a_process(ssh, f"sys.exit(server.tunnel({port}, 22))")
    try:
        through = SshClient(SshAddress("127.0.0.1", "cc", port, ssh.address.key), ssh.state_folder)
        through.wait_for_login(60)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    finally:
        process.kill()
    with pytest.raises(ServiceError):
        through.run(["true"])


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def private_repository(server: ServerContainer, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A git repository that wants a user and a token; `server.while_reading` is called once it has got them."""
    work, served = tmp_path / "work", tmp_path / "served"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q", work], check=True)
    subprocess.run([*git, "-C", work, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    subprocess.run([*git, "clone", "-q", "--bare", work, served / "private.git"], check=True)
    subprocess.run([*git, "-C", served / "private.git", "update-server-info"], check=True)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != "Basic " + base64.b64encode(f"lab:{TOKEN}".encode()).decode():
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="lab"')
                self.end_headers()
                return
            self.server.while_reading()
            super().do_GET()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer((server.gateway, 0), partial(Handler, directory=str(served))) as served_by:
        threading.Thread(target=served_by.serve_forever, daemon=True).start()
        yield served_by
        served_by.shutdown()


def test_repository_token_is_neither_shown_nor_stored(
    ssh: SshClient, private_repository: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = ""

    def look_at_processes() -> None:
        nonlocal processes
        processes = processes or on_server(ssh, "cat /proc/[0-9]*/cmdline 2>/dev/null; true").replace("\0", " ")

    private_repository.while_reading = look_at_processes
    address = "{}:{}/private.git".format(*private_repository.server_address)
    wanted = replace(NOTHING, repository=f"http://lab:{TOKEN}@{address}")
    for _ in range(2):
        host_scripts.set_up(ssh, wanted, [], marks()[1])
    assert ssh.run(["git", "-C", "private", "log", "-1", "--format=%s"]).stdout == "one\n"
    assert ssh.run(["git", "-C", "private", "config", "remote.origin.url"]).stdout == f"http://{address}\n"
    assert "repository.sh" in processes and address in processes and TOKEN not in processes
    assert ssh.run(["grep", "-rl", TOKEN, "/home", "/tmp", "/var/tmp"], root=True).stdout == ""
    with pytest.raises(ServiceError, match="git can't read") as told:
        host_scripts.set_up(ssh, replace(NOTHING, repository=f"http://lab:not-{TOKEN}@{address}"), [], marks()[1])
    assert TOKEN not in str(told.value) + capsys.readouterr().err


HOLD = """
use Fcntl;
open(my $file, ">>", $ARGV[0]) or die $!;
my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
fcntl($file, F_SETLK, $lock) or die $!;
$| = 1; print "held\\n"; <STDIN>;
"""


DPKG_LOCK = "/var/lib/dpkg/lock-frontend"


def wait_until_it_met_the_lock(ssh: SshClient) -> None:
    """Wait in one command on the server, since each login takes seconds."""
    on_server(ssh, f"timeout {BOOT_SECONDS} sh -c 'until grep -qs lock /tmp/tmp.*; do sleep 0.2; done'")


@pytest.mark.parametrize("lock", [DPKG_LOCK, "/var/lib/apt/lists/lock"])
def test_install_waits_for_another_process_with_the_package_lock(ssh: SshClient, lock: str) -> None:
    """This happens in the first minutes of a fresh cloud image."""
    on_server(ssh, "dpkg --purge nload 2>/dev/null; rm -f /run/larder-lists")
    wanted = HostSetup(docker=False, rclone=False, tools=("nload",), repository=None, revision=None)
    argv = ["ssh", "-F", str(ssh.fragment), ssh.alias, shlex.join(["sudo", "perl", "-e", HOLD, lock])]
    with ThreadPoolExecutor() as pool, subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        setting_up = pool.submit(host_scripts.set_up, ssh, wanted, [], marks()[1])
        wait_until_it_met_the_lock(ssh)
        assert not setting_up.done() and ssh.run(["which", "nload"]).code == 1
        holder.communicate(b"\n")
        setting_up.result(2 * BOOT_SECONDS)
    assert ssh.run(["which", "nload"]).code == 0


def test_interrupted_set_up_is_completed_by_the_next(ssh: SshClient) -> None:
    """Press Ctrl-C while the server waits for the package manager, where a started step may continue."""
    on_server(ssh, "dpkg --purge nload 2>/dev/null; rm -f /run/larder-lists")
    wanted = replace(NOTHING, tools=("nload",))
    hold = ["ssh", "-F", str(ssh.fragment), ssh.alias, shlex.join(["sudo", "perl", "-e", HOLD, DPKG_LOCK])]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        setting_up = in_a_process(ssh, f"host_scripts.set_up(server, host_scripts.{wanted}, [], print)")
        wait_until_it_met_the_lock(ssh)
        setting_up.send_signal(signal.SIGINT)
        _, told = setting_up.communicate(timeout=120)
        assert "KeyboardInterrupt" in told and ssh.run(["which", "nload"]).code == 1
        holder.communicate(b"\n")
    host_scripts.set_up(ssh, wanted, [], marks()[1])
    assert ssh.run(["which", "nload"]).code == 0


LISTEN = (
    "import socket; server = socket.create_server(('127.0.0.1', 2049)); print(flush=True); server.accept()[0].recv(1)"
)


def test_nfs_client_is_installed_without_a_port_mapper_that_anybody_reaches(ssh: SshClient) -> None:
    share = Export("1", "127.0.0.1:/shares/a", "/mnt/share", is_new=True)
    with pytest.raises(ServiceError, match=r"the NFS server 127\.0\.0\.1, port 2049, can't be reached.*refused"):
        host_scripts.mount_export(ssh, share)
    assert ssh.run(["which", "mount.nfs"], root=True).code == 1, "nothing is changed before the server answers"
    on_server(
        ssh, f'python3 -c "{LISTEN}" </dev/null >/tmp/listening 2>&1 & until [ -s /tmp/listening ]; do sleep 0.1; done'
    )
    with pytest.raises(LarderError, match=r"127\.0\.0\.1:/shares/a"):  # a container's kernel mounts nothing
        host_scripts.mount_export(ssh, share)
    assert ssh.run(["which", "mount.nfs"], root=True).code == 0
    assert on_server(ssh, "systemctl is-active rpcbind.socket rpcbind.service || true").split() == ["inactive"] * 2
    assert on_server(ssh, "systemctl is-enabled rpcbind.socket rpcbind.service || true").split() == ["disabled"] * 2
    assert on_server(ssh, "grep -c nfs /etc/fstab || true").strip() == "0"


def test_everything_is_installed_and_the_second_time_only_found(
    ssh: SshClient, capsys: pytest.CaptureFixture[str]
) -> None:
    on_server(ssh, "dpkg --purge nload 2>/dev/null; rm -f /run/larder-lists")
    assert ssh.run(["sh", "-c", "command -v docker rclone nload"]).stdout == ""
    host_scripts.set_up(ssh, HostSetup(True, True, ("nload", "git"), None, None), [], marks()[1])
    on_server(
        ssh, "git init -q -b main /srv/work && cd /srv/work && git config user.email a@b && git config user.name a"
    )
    on_server(ssh, "cd /srv/work && git commit -q --allow-empty -m one && chown -R cc /srv/work")
    wanted = HostSetup(True, True, ("nload",), "file:///srv/work", "main")
    host_scripts.set_up(ssh, wanted, [], marks()[1])
    capsys.readouterr()
    host_scripts.set_up(ssh, wanted, [], marks()[1], Reporter("lab", "json"))
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert told and not [line for line in told if line["stage"] != "lab" or not line["message"].startswith("found ")]
    assert ssh.run(["git", "-C", "work", "log", "-1", "--format=%s"]).stdout == "one\n"
    assert "Docker Compose version" in ssh.run(["docker", "compose", "version"]).stdout
    assert ssh.run(["docker", "version", "--format", "{{.Server.Os}}"]).stdout == "linux\n"  # cc asks, without sudo
    assert on_server(ssh, "systemctl is-enabled docker") == "enabled\n"
    assert on_server(ssh, "grep -x user_allow_other /etc/fuse.conf && command -v rclone nload")
