"""Host set-up over SSH on a machine: the volume script, twice, and what goes wrong on the way; Docker; a reboot.

One guest serves all tests of this module; each leaves the mount point free.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from larder.errors import LarderError, ServiceError, StorageError
from larder.progress import Reporter
from provision import gpu, host_scripts
from provision.gpu import RebootNeededError
from provision.host_scripts import Disk, Export
from provision.ssh import SshAddress, SshClient
from tests.conftest import free_ports, wait_until
from tests.openstack.disks import GIB, missing
from tests.openstack.guest import BOOT_SECONDS, Guest, make_key
from tests.openstack.nfs import NfsServer
from tests.openstack.remote import NOTHING, in_a_process, marks, on_server

MOUNT = "/mnt/block"


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


def look(ssh: SshClient, disk: Disk, seconds: int = 0) -> dict[str, Any]:
    """What stands on a disk, which may take `seconds` to appear, as `volume.py look` tells it."""
    seen: dict[str, Any] = json.loads(host_scripts._volume(ssh, "look", disk, seconds=seconds))
    return seen


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
    # Without --mbr=n, it writes a partition table with the whole disk as partition, which LVM may find for a while.
    on_server(ssh, f"swapoff {device} && mkfs.vfat --mbr=n {device} && mount {device} /srv")
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


def is_mounted(ssh: SshClient, mount: str = MOUNT) -> bool:
    try:
        return ssh.run(["findmnt", mount]).code == 0
    except ServiceError:
        return False


# --- a share ----------------------------------------------------------------------------------------------------------

PLACE = "/mnt/share"
WAIT_FOR_NETWORK = "for word in unmask enable; do systemctl --quiet $word systemd-networkd-wait-online; done; sync"
"""As on clouds' images: network-online.target, after which shares are mounted, waits for an address."""


@pytest.fixture
def nfs() -> Iterator[NfsServer]:
    """An NFS server that sees the guest as its container's host does: by the address of Docker's bridge."""
    form = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
    bridge = subprocess.check_output(["docker", "network", "inspect", "bridge", "--format", form], text=True).strip()
    made = NfsServer(bridge)
    wait_until(lambda: is_listening(made.address, 2049), "the NFS server listens")
    yield made
    made.close()


def is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def fstab(ssh: SshClient) -> str:
    return on_server(ssh, "grep -v ' / ' /etc/fstab || true")


def test_share_lives_through_reboots_and_a_server_that_does_not_answer(
    ssh: SshClient, guest: Guest, nfs: NfsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, because the guest has to boot with it."""
    share = Export(str(uuid.uuid4()), f"{nfs.address}:/shares/open", PLACE, is_new=True)
    share_is_mounted_and_its_user_s(ssh, share, capsys)
    share_in_use_is_not_unmounted(ssh, share)
    on_server(ssh, WAIT_FOR_NETWORK)
    guest.reset()
    wait_until(lambda: is_mounted(ssh, PLACE), "the guest has booted and mounted it", 2 * BOOT_SECONDS)
    assert on_server(ssh, f"cat {PLACE}/note") == "kept\n"
    monkeypatch.setattr(host_scripts, "NFS_SECONDS", 5)
    share_that_does_not_answer_is_named(ssh, share, nfs)
    share_that_was_deleted_is_named(ssh, share, nfs)


def share_is_mounted_and_its_user_s(ssh: SshClient, share: Export, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        host_scripts.mount_export(ssh, share, Reporter("lab"))
    told = capsys.readouterr().err
    assert f"mounted {share.source} at {PLACE}" in told and f"gave {PLACE} to cc" in told
    assert f"found it mounted at {PLACE}" in told and "found it in /etc/fstab" in told
    assert fstab(ssh).count(share.id) == 1
    seen = on_server(ssh, f"findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS {PLACE}").split()
    assert seen[:2] == [share.source, "nfs4"] and {"vers=4.1", "hard", "proto=tcp"} <= {*seen[2].split(",")}
    assert ssh.run(["sh", "-c", f"echo kept >{PLACE}/note"]).code == 0  # as the user who logs in


def share_in_use_is_not_unmounted(ssh: SshClient, share: Export) -> None:
    on_server(ssh, f"systemd-run --quiet --unit=holder --working-directory={PLACE} sleep 600")
    with pytest.raises(StorageError, match=rf"{PLACE} is in use by process \d+ \(sleep\)"):
        host_scripts.unmount_export(ssh, share.id, PLACE)
    on_server(ssh, "systemctl stop holder")
    for _ in range(2):
        host_scripts.unmount_export(ssh, share.id, PLACE)
    assert fstab(ssh) == "" and not is_mounted(ssh, PLACE)
    host_scripts.mount_export(ssh, share)


def share_that_does_not_answer_is_named(ssh: SshClient, share: Export, nfs: NfsServer) -> None:
    nfs.pause()
    with pytest.raises(ServiceError, match=f"{PLACE}: its NFS server gave no answer within 5 s") as caught:
        host_scripts.mount_export(ssh, share)
    give_up(ssh, caught.value)
    with pytest.raises(ServiceError, match=f"{share.source}: its NFS server gave no answer within 5 s"):
        host_scripts.mount_export(ssh, share)
    nfs.go_on()
    host_scripts.mount_export(ssh, share)
    assert on_server(ssh, f"cat {PLACE}/note") == "kept\n"


def give_up(ssh: SshClient, error: ServiceError) -> None:
    """Do what the error advises for what can't be unmounted otherwise."""
    command = error.next_step.partition("give up what wasn't written: ")[2]
    assert command.endswith(f" {PLACE}")
    ended = ssh.run(["sh", "-c", f"{command}; echo ended $?"])
    assert ended.stdout == "ended 137\n", ended  # killed, while it waits for the server
    assert not is_mounted(ssh, PLACE)


def share_that_was_deleted_is_named(ssh: SshClient, share: Export, nfs: NfsServer) -> None:
    nfs.close()
    with pytest.raises(ServiceError, match="gave no answer within 5 s") as caught:
        host_scripts.mount_export(ssh, share)
    give_up(ssh, caught.value)
    with pytest.raises(ServiceError, match=f"the NFS server {nfs.address}, port 2049, can't be reached"):
        host_scripts.mount_export(ssh, share)
    host_scripts.unmount_export(ssh, share.id, PLACE)
    assert fstab(ssh) == ""


def test_shares_that_can_not_be_mounted_are_named(
    ssh: SshClient, nfs: NfsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = Export("1", f"{nfs.address}:/shares/open", "/srv/share", is_new=False)
    refused = {
        "mkdir -p /srv/share && touch /srv/share/mine": "/srv/share holds files",
        "rm -r /srv/share && ln -s /opt /srv/share": "--mount /srv/share is a link",
        "rm /srv/share && mkdir /srv/share && mount -t tmpfs none /srv/share": "none is mounted at /srv/share already",
        f"umount /srv/share && echo '{share.source} /opt nfs defaults 0 0' >>/etc/fstab": "a line of somebody else",
    }
    for command, says in refused.items():
        on_server(ssh, command)
        with pytest.raises(LarderError, match=says):
            host_scripts.mount_export(ssh, share)
    on_server(ssh, "sed -i '/nfs defaults/d' /etc/fstab")
    for path in ("/shares/closed", "/shares/none"):
        with pytest.raises(StorageError, match=rf"{nfs.address}:{path} can't be mounted: mount.nfs.*: ") as caught:
            host_scripts.mount_export(ssh, replace(share, source=f"{nfs.address}:{path}"))
        assert "access rules" in caught.value.next_step
    assert fstab(ssh) == "" and not is_mounted(ssh, "/srv/share")
    host_scripts.mount_export(ssh, share)
    assert on_server(ssh, "stat -c %U /srv/share") == "root\n"  # since it isn't ours
    with pytest.raises(StorageError, match=f"{share.source} is mounted at /srv/share already, and not"):
        host_scripts.mount_export(ssh, replace(share, source=f"{nfs.address}:/shares/closed"))
    host_scripts.unmount_export(ssh, share.id, "/srv/share")


# --- Docker -----------------------------------------------------------------------------------------------------------


def test_docker_is_started_and_its_containers_depend_on_the_volume(ssh: SshClient, guest: Guest) -> None:
    """One test, because Docker takes long to start here. It is installed already: test_host_server does that."""
    docker_is_started_now_and_at_boot(ssh, guest)
    container_keeps_the_volume_from_being_unmounted(ssh, guest)
    docker_does_not_start_without_the_volume(ssh, guest)


def docker_is_started_now_and_at_boot(ssh: SshClient, guest: Guest) -> None:
    assert "inactive" in on_server(ssh, "systemctl is-active docker || true")
    host_scripts.set_up(ssh, replace(NOTHING, docker=True), [plugged(ssh, guest)], marks()[1])
    assert on_server(ssh, "systemctl is-active docker; systemctl is-enabled docker") == "active\nenabled\n"
    assert "Docker Compose version" in ssh.run(["docker", "compose", "version"]).stdout
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


def plugged(ssh: SshClient, guest: Guest) -> Disk:
    """A disk, the same one each time, plugged in."""
    disk = Disk("5eed0000-0000-4000-8000-000000000000", 1, MOUNT, blank=True)
    if look(ssh, disk)["state"] == "absent":
        guest.plug(disk.serial, GIB)
    return disk


def mounted(ssh: SshClient, guest: Guest) -> Disk:
    """That disk, with a file system and mounted."""
    disk = plugged(ssh, guest)
    host_scripts.mount(ssh, disk, marks()[1])
    return replace(disk, blank=False)


# --- a GPU ------------------------------------------------------------------------------------------------------------

DRIVER_OF_NEXT_BOOT = """
set -e
cp /proc/sys/kernel/random/boot_id /var/lib/larder-nvidia-boot
mkdir -p /srv/sys/bus/pci/devices/0
echo 0x10de >/srv/sys/bus/pci/devices/0/vendor
echo 0x030200 >/srv/sys/bus/pci/devices/0/class
cat >/usr/local/bin/nvidia-smi <<'X'
#!/bin/sh
[ "$(cat /proc/sys/kernel/random/boot_id)" != "$(cat /srv/installed-in)" ] && echo NVIDIA A100, 570.1
X
cp /proc/sys/kernel/random/boot_id /srv/installed-in
printf '#!/bin/sh\nexec nvidia-smi\n' >/usr/local/bin/docker
printf '#!/bin/sh\necho the toolkit\n' >/usr/local/bin/nvidia-ctk
chmod +x /usr/local/bin/*
sync
"""
"""Stand-ins for a driver that was installed in this boot and works from the next one on, and for containers."""


def test_a_driver_that_needs_a_reboot_gets_it_on_a_new_server(
    ssh: SshClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_script(ssh: SshClient, name: str, *words: str, **options: Any) -> str:
        return host_scripts.run_script(ssh, name, *words, "--sysfs", "/srv/sys", **options)

    monkeypatch.setattr(gpu, "run_script", run_script)
    reporter = Reporter("lab")
    on_server(ssh, DRIVER_OF_NEXT_BOOT)
    with pytest.raises(RebootNeededError, match=r"works only after a reboot: .*nvidia"):
        gpu.set_up_gpu(ssh, reporter, may_reboot=False, reboot_seconds=BOOT_SECONDS)
    gpu.set_up_gpu(ssh, reporter, may_reboot=True, reboot_seconds=2 * BOOT_SECONDS)
    told = capsys.readouterr().err
    assert "found the driver: 1 x NVIDIA A100, 570.1" in told and "found in a container: 1 x NVIDIA A100" in told
    on_server(ssh, "rm /usr/local/bin/* /srv/installed-in /srv/sys -r; test ! -e /var/lib/larder-nvidia-boot")
