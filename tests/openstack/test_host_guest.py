"""Host set-up over SSH on a real server: every script, twice, and what goes wrong on the way.

One guest serves all tests of this module; each leaves the mount point free.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.progress import Reporter
from provision import host_scripts
from provision import ssh as ssh_module
from provision.host_scripts import Disk, HostSetup
from provision.ssh import SshAddress, SshClient
from tests.conftest import free_ports, wait_until
from tests.openstack.disks import GIB, ROOT, missing
from tests.openstack.guest import BOOT_SECONDS, Guest, make_key

MOUNT = "/mnt/block"
TOKEN = "token-of-nobody"
HOST_FROM_GUEST = "10.0.2.2"
"""This machine's loopback, as QEMU shows it."""
NOTHING = HostSetup(docker=False, rclone=False, tools=(), repository=None, revision=None)


def new_disk(gib: int = 1) -> Disk:
    return Disk(str(uuid.uuid4()), gib, MOUNT, blank=True)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def guest(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        missing("the guest runs in a container, and no container engine answers (docker info)")
    port = free_ports(1)[0]
    folder, public_key = tmp_path_factory.mktemp("guest"), key.with_suffix(".pub").read_text().strip()
    made = Guest(folder / "guest", folder / "disks", public_key, f"127.0.0.1:{port}")
    made.port = port
    yield made
    made.close()


@pytest.fixture(scope="module")
def ssh(guest: Guest, key: Path, tmp_path_factory: pytest.TempPathFactory) -> SshClient:
    made = SshClient(SshAddress("127.0.0.1", "cc", guest.port, key), tmp_path_factory.mktemp("state") / "server")
    made.wait_for_login(BOOT_SECONDS)
    return made


@pytest.fixture
def another(ssh: SshClient, tmp_path: Path) -> Callable[..., SshClient]:
    """The same server, reached in another way."""
    return lambda **changes: SshClient(SshAddress(**{**vars(ssh.address), **changes}), tmp_path / "other server")


def on_server(ssh: SshClient, command: str) -> str:
    ended = ssh.run(["sh", "-c", command], root=True)
    assert ended.code == 0, ended.stderr
    return ended.stdout


def look(ssh: SshClient, disk: Disk, seconds: int = 0) -> dict[str, Any]:
    """What stands on a disk, which may take `seconds` to appear, as `volume.sh look` tells it."""
    seen: dict[str, Any] = json.loads(host_scripts._volume(ssh, "look", disk, seconds=seconds))
    return seen


def in_a_process(ssh: SshClient, code: str) -> subprocess.Popen[str]:
    """Code in a process of its own, which a signal may end; the same server is its `server`."""
    head = (
        "import sys; from pathlib import Path; from provision import host_scripts; from provision.ssh import "
        "SshAddress, SshClient\n"
        "host, user, port, key, folder = sys.argv[1:]\n"
        "server = SshClient(SshAddress(host, user, int(port), Path(key)), Path(folder))\n"
    )
    address = ssh.address
    argv = [address.host, address.user, str(address.port), str(address.key), str(ssh.state_folder)]
    return subprocess.Popen([sys.executable, "-c", head + code, *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def marks() -> tuple[list[Disk], Callable[[Disk], None]]:
    marked: list[Disk] = []
    return marked, marked.append


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


def test_step_that_must_not_be_cut_goes_on_there(ssh: SshClient) -> None:
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


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_disk_that_never_appears_is_named(ssh: SshClient, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()
    monkeypatch.setattr(host_scripts, "APPEAR_SECONDS", 2)
    with pytest.raises(StorageError, match=f"no disk with the serial {disk.serial[:20]}; disks here: /dev/vda"):
        host_scripts.mount(ssh, disk, marks()[1])
    assert look(ssh, disk)["state"] == "absent"


def test_disk_with_somebodys_data_is_refused_and_other_sizes_too(ssh: SshClient, guest: Guest) -> None:
    disk = new_disk()
    file = guest.plug(disk.serial, GIB)
    with pytest.raises(StorageError, match="declared are 2 GiB"):
        host_scripts.mount(ssh, Disk(disk.serial, 2, MOUNT, True), marks()[1])
    device = look(ssh, disk, 30)["device"]
    on_server(ssh, f"pvcreate -qq {device}")
    before = file.read_bytes()[: 1 << 20]
    marked, mark = marks()
    with pytest.raises(StorageError, match="LVM2_member"):
        host_scripts.mount(ssh, disk, mark)
    on_server(ssh, "sync")
    assert (file.read_bytes()[: 1 << 20], marked) == (before, [])
    guest.unplug(disk.serial)


def test_what_the_server_does_with_a_disk_is_named(ssh: SshClient, guest: Guest) -> None:
    disk = new_disk()
    assert host_scripts.find_disk_users(ssh, disk.serial) == [
        f"not to be found on this server by its serial {disk.serial[:20]}"
    ]
    guest.plug(disk.serial, GIB)
    device = look(ssh, disk, 30)["device"]
    assert host_scripts.find_disk_users(ssh, disk.serial) == []
    on_server(ssh, f"mkswap {device} && swapon {device}")
    assert host_scripts.find_disk_users(ssh, disk.serial) == ["swap"]
    on_server(ssh, f"swapoff {device} && mkfs.vfat {device} && mount {device} /srv")
    assert host_scripts.find_disk_users(ssh, disk.serial) == ["mounted at /srv"]
    on_server(ssh, f"umount /srv && wipefs -qa {device}")
    on_server(ssh, f"vgcreate -qq lab {device} && lvcreate -qq -y -L 100M -n data lab && mkfs.ext4 -q /dev/lab/data")
    assert host_scripts.find_disk_users(ssh, disk.serial) == ["part of LVM's volume group lab"]
    on_server(ssh, "mkdir -p /srv/data && mount /dev/lab/data /srv/data")
    assert host_scripts.find_disk_users(ssh, disk.serial) == ["mounted at /srv/data", "part of LVM's volume group lab"]
    on_server(ssh, "umount /srv/data && vgremove -qq -y lab && pvremove -qq " + device)
    on_server(ssh, f"printf secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {device} -")
    on_server(ssh, f"printf secret | cryptsetup open --key-file - {device} hidden")
    assert host_scripts.find_disk_users(ssh, disk.serial) == ["opened as /dev/mapper/hidden (dm-crypt)"]
    on_server(ssh, "cryptsetup close hidden")
    assert host_scripts.find_disk_users(ssh, disk.serial) == []
    guest.unplug(disk.serial)


def test_volume_lives_through_connection_losses_interrupts_growing_and_power_cuts(ssh: SshClient, guest: Guest) -> None:
    disk = new_disk()
    guest.plug(disk.serial, GIB)
    killed_on_the_way(ssh, disk)
    marked, mark = marks()
    host_scripts.mount(ssh, disk, mark)
    assert marked == [disk]
    ours = Disk(disk.serial, 1, MOUNT, blank=False)
    host_scripts.mount(ssh, ours, mark)
    assert marked == [disk]
    assert on_server(ssh, f"stat -c %U {MOUNT}/workspace {MOUNT}/docker-volumes").split() == ["cc", "cc"]
    on_server(ssh, f"echo kept >{MOUNT}/workspace/note; chown 999 {MOUNT}/workspace; sync")
    seen = look(ssh, ours)
    assert (seen["state"], seen["mounted_at"], seen["users"]) == ("mounted", MOUNT, [])

    guest.grow(disk.serial, 2 * GIB)
    for _ in range(2):
        host_scripts.grow(ssh, Disk(disk.serial, 2, MOUNT, False))
    assert int(on_server(ssh, f"df --output=size -B1 {MOUNT}").split()[1]) > 1.8 * GIB

    on_server(ssh, f"cd {MOUNT}; setsid sleep 600 </dev/null >/dev/null 2>&1 &")
    with pytest.raises(StorageError, match=rf"{MOUNT} is in use by process \d+ \(sleep\)"):
        host_scripts.unmount(ssh, ours)
    on_server(ssh, "pkill -f '^sleep 600'")

    guest.reset()
    try:
        wait_until(lambda: is_mounted(ssh), "the guest has booted and mounted it", 2 * BOOT_SECONDS)
    finally:
        print(guest.console[-3000:])
    assert on_server(ssh, f"cat {MOUNT}/workspace/note; stat -c %u {MOUNT}/workspace").split() == ["kept", "999"]
    for _ in range(2):
        host_scripts.unmount(ssh, ours)
    guest.unplug(disk.serial)
    assert look(ssh, ours)["state"] == "absent"
    guest.plug(disk.serial)
    host_scripts.mount(ssh, Disk(disk.serial, 2, MOUNT, False), mark)
    assert on_server(ssh, f"cat {MOUNT}/workspace/note; stat -c %u {MOUNT}/workspace").split() == ["kept", "999"]
    assert marked == [disk]
    host_scripts.unmount(ssh, ours)


def killed_on_the_way(ssh: SshClient, disk: Disk) -> None:
    """Formatting and mounting, with the connection cut on the server's side at some moments, and Ctrl-C at another."""
    for seconds in (1.0, 2.5, 5.0):
        cut = threading.Timer(seconds, cut_connections, [ssh])
        cut.start()
        try:
            host_scripts.mount(ssh, disk, marks()[1])
        except LarderError as error:
            assert isinstance(error, ServiceError), error
            assert "connection was lost" in error.what and "run the same command again" in error.next_step
        cut.join()
    process = in_a_process(ssh, f"host_scripts.mount(server, host_scripts.{disk}, print)")
    try:
        process.wait(1.5)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 or "KeyboardInterrupt" in told


def cut_connections(ssh: SshClient) -> None:
    """Kill every connection on the server's side, this one included."""
    with pytest.raises(ServiceError, match="connection was lost"):
        ssh.run(["pkill", "-KILL", "-f", "^sshd-session: cc"], root=True)


def is_mounted(ssh: SshClient) -> bool:
    try:
        return ssh.run(["findmnt", MOUNT]).code == 0
    except ServiceError:
        return False


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def private_repository(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
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

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_repository_token_is_neither_shown_nor_stored(
    ssh: SshClient, private_repository: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    processes = ""

    def look_at_processes() -> None:
        nonlocal processes
        processes = processes or on_server(ssh, "cat /proc/[0-9]*/cmdline 2>/dev/null; true").replace("\0", " ")

    private_repository.while_reading = look_at_processes
    address = f"{HOST_FROM_GUEST}:{private_repository.server_port}/private.git"
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
    """Wait there: each login takes as long as a step of what is waited for."""
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


def test_server_is_set_up_and_its_containers_depend_on_the_volume(
    ssh: SshClient, guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, because installing Docker takes minutes here."""
    mounted(ssh, guest)
    everything_is_set_up_and_the_second_time_only_found(ssh, capsys)
    container_keeps_the_volume_from_being_unmounted(ssh, guest)
    docker_does_not_start_without_the_volume(ssh, guest)


def everything_is_set_up_and_the_second_time_only_found(ssh: SshClient, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert on_server(ssh, "grep -x user_allow_other /etc/fuse.conf && command -v rclone nload")
    assert on_server(ssh, "systemctl show docker -p RequiresMountsFor").split("=")[1].split() == [MOUNT]


def container_keeps_the_volume_from_being_unmounted(ssh: SshClient, guest: Guest) -> None:
    """A named volume that is bound to a folder of the block volume, as provision/host/README.md says."""
    disk = mounted(ssh, guest)
    on_server(ssh, "tar -C / -c bin/busybox usr/bin/busybox 2>/dev/null | docker import - busybox >/dev/null")
    folder = f"{MOUNT}/docker-volumes/lab"
    on_server(
        ssh, f"mkdir -p {folder} && docker volume create -o type=none -o o=bind -o device={folder} lab >/dev/null"
    )
    on_server(ssh, "docker run -d --name holder -v lab:/lab busybox /usr/bin/busybox sleep 600")
    on_server(ssh, "docker exec holder /usr/bin/busybox touch /lab/saved")
    with pytest.raises(StorageError, match=rf"{MOUNT} is in use by container holder"):
        host_scripts.unmount(ssh, disk)
    on_server(ssh, f"test -e {folder}/saved && docker rm -f holder")
    host_scripts.unmount(ssh, disk)
    assert on_server(ssh, "systemctl is-active docker") == "active\n"


def docker_does_not_start_without_the_volume(ssh: SshClient, guest: Guest) -> None:
    disk = mounted(ssh, guest)
    on_server(ssh, f"systemctl stop docker.socket docker && umount {MOUNT}")
    guest.unplug(disk.serial)
    on_server(ssh, wait_for_devices_at_most(10))
    assert "ended 1" in on_server(ssh, "systemctl start docker || echo ended $?")
    guest.plug(disk.serial)
    on_server(ssh, "systemctl start docker")
    assert look(ssh, disk)["mounted_at"] == MOUNT
    host_scripts.unmount(ssh, disk)


def wait_for_devices_at_most(seconds: int) -> str:
    """The command that has systemd wait less for a device of /etc/fstab than the line there says."""
    return (
        "for unit in /run/systemd/generator/*.device.d; do"
        f" printf '[Unit]\\nJobRunningTimeoutSec={seconds}\\n' | install -D /dev/stdin"
        ' "/run/systemd/system/${unit##*/}/99-shorter.conf"; done; systemctl daemon-reload'
    )


def mounted(ssh: SshClient, guest: Guest) -> Disk:
    """A disk with a file system, plugged in and mounted, the same one each time."""
    serial = "5eed0000-0000-4000-8000-000000000000"
    if look(ssh, Disk(serial, 1, MOUNT, True))["state"] == "absent":
        guest.plug(serial, GIB)
    host_scripts.mount(ssh, Disk(serial, 1, MOUNT, blank=True), marks()[1])
    return Disk(serial, 1, MOUNT, blank=False)
