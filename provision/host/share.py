#!/usr/bin/env python3
"""Mount and unmount a share, a file system of an NFS server, on this server. A dead NFS server never blocks it.

For Python 3.9 and newer, standard library only: it is sent over SSH, and works by hand beside volume.py, whose
functions it uses. What a share's address is, the cloud says: it is validated, and never reaches a shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    from provision.host import volume
except ImportError:  # on a server, where it lies beside this file
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import volume  # type: ignore[no-redef, import-not-found, unused-ignore]

from ipaddress import ip_address

USAGE = """\
share.py COMMAND --mount DIR [options]

  mount     mount an NFS export, now and at each boot (fstab, nofail)
  unmount   undo `mount`: unmount, and remove the line in fstab; refused while in use

  --export HOST:PATH  what to mount: 10.0.0.7:/shares/photos; an IPv6 address in brackets
  --mount DIR         the mount point: an empty folder, or none yet
  --id ID             the share's id, by which its line in fstab is found; default by-hand
  --wait SECONDS      how long an NFS server may take to answer; default 60
  --give-to USER      give the share's top folder to this user if the share is empty and belongs to root
"""

PORT = 2049
CONNECT_SECONDS = 10
DENIED_SECONDS = 20
"""How long a server may deny a client that it was just told to allow."""
BOOT_SECONDS = 90
"""How long a boot, and Docker's start, wait for a server that doesn't answer."""
TIMED_OUT = 124
"""What `limited` returns for a program that was killed."""
KILL_SECONDS = 5
NFS_OPTIONS = "nfsvers=4.1,proto=tcp"
"""4.1: older versions need rpc.statd, and 4.2 has the kernel read by READ_PLUS, to which NFS-Ganesha 4.3 answers with
zeros in place of the data (Linux 6.12). `hard`, the default: else a pause of the server loses data."""
MARK = "x-larder-share="

_NAME = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_EXPORT = re.compile(rf"({_NAME}|\[[0-9A-Fa-f:.]+\]):((/[A-Za-z0-9._+=@~-]+)+/?|/)")
MAX_EXPORT = 1024


def parse_export(text: str) -> tuple[str, str] | None:
    """Return host and path of an NFS export, or None if the text is none. An IPv6 address stands in brackets."""
    match = _EXPORT.fullmatch(text) if len(text) <= MAX_EXPORT else None
    if match is None or {".", ".."} & set(match[3].split("/")):
        return None
    host = match[1].strip("[]")
    if match[1].startswith("[") or re.fullmatch(r"[0-9.]+", host):
        try:
            address = ip_address(host)
        except ValueError:
            return None
        if (address.version == 6) != match[1].startswith("["):
            return None
    return host, match[3]


def without_slash(export: str) -> str:
    """Return an export without a slash at its end, as the kernel has it."""
    return export if export.endswith(":/") else export.rstrip("/")


@dataclass(frozen=True)
class Options:
    """The command line."""

    command: str
    mount: str
    export: str = ""
    id: str = "by-hand"
    seconds: int = 60
    """How long an NFS server may take to answer."""
    user: str = ""
    """Who gets the top folder of a share that is empty and root's."""

    @property
    def line(self) -> str:
        """Our line in /etc/fstab."""
        options = (
            f"{NFS_OPTIONS},_netdev,nofail,x-systemd.mount-timeout={BOOT_SECONDS}s,"
            f"x-systemd.before=docker.service,{MARK}{self.id}"
        )
        return f"{self.export} {self.mount} nfs {options} 0 0"


def parse_options(words: Sequence[str]) -> Options:
    """Return the options. Raises VolumeError if a word or value is wrong."""
    if not words:
        volume.wrong_usage("no command")
    command, *rest = words
    if command not in COMMANDS:
        volume.wrong_usage(f"unknown command '{command}'")
    given = volume.read_words(rest, ("--export", "--mount", "--id", "--wait", "--give-to"))
    for name in ("--mount", *(["--export"] if command == "mount" else [])):
        if name not in given:
            volume.wrong_usage(f"{command} needs {name}")
    volume.check_path(given["--mount"])
    if "--export" in given and parse_export(given["--export"]) is None:
        volume.wrong_usage(f"--export {given['--export']!r} is no HOST:PATH of plain letters")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", given.get("--id", Options.id)):
        volume.wrong_usage(f"--id {given['--id']!r} is no id")
    seconds = given.get("--wait", str(Options.seconds))
    if not re.fullmatch(r"[1-9][0-9]{0,3}", seconds):
        volume.wrong_usage(f"--wait {seconds} is no number of seconds")
    return Options(
        command,
        given["--mount"],
        without_slash(given.get("--export", "")),
        given.get("--id", Options.id),
        int(seconds),
        given.get("--give-to", ""),
    )


# --- what is mounted: from the kernel alone, since a look at a mount point may wait for a dead server -----------------


@dataclass(frozen=True)
class Mount:
    """A line of a process's mountinfo."""

    device: str
    """Major and minor number, the same for each place where the file system is mounted: 0:52."""
    target: str
    kind: str
    source: str

    @property
    def is_nfs(self) -> bool:
        """Whether an NFS server has the files."""
        return self.kind in ("nfs", "nfs4")


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts in the text of /proc/PID/mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) > 4 and len(more) > 1:
            mounts.append(Mount(fields[2], unescape(fields[4]), more[0], unescape(more[1])))
    return mounts


def unescape(text: str) -> str:
    r"""Return a field of mountinfo or fstab, in which a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def read_mounts(process: str = "self") -> list[Mount]:
    """Return what a process has mounted; nothing if it has ended."""
    try:
        return parse_mounts(Path(f"/proc/{process}/mountinfo").read_text(errors="replace"))
    except OSError:
        return []


def mounted_at(target: str) -> Mount | None:
    """Return what is mounted at a mount point: the last one, if several are."""
    return next((mount for mount in reversed(read_mounts()) if mount.target == target), None)


def list_users(mount: Mount) -> list[str]:
    """Return who uses a mounted share, by the names of their files: the files themselves may not answer."""
    inside = [
        f"container {name}"
        for process, name in volume.containers()
        if any(item.device == mount.device for item in read_mounts(str(process)))
    ]
    return inside + [volume.name_of(process) for process in volume.processes() if has_open(process, mount.target)]


def has_open(process: int, target: str) -> bool:
    """Return whether a process has its folder, its program or an open file below a mount point."""
    folder = f"/proc/{process}"
    try:
        links = ["cwd", "root", "exe", *(f"fd/{name}" for name in os.listdir(f"{folder}/fd"))]
    except OSError:  # it has ended
        return False
    return any(link_of(f"{folder}/{name}").startswith(f"{target}/") for name in links)


def link_of(path: str) -> str:
    """Return a link's target, with a slash at its end; "" if it is gone."""
    try:
        return os.readlink(path) + "/"
    except OSError:
        return ""


def limited(seconds: int, *argv: str) -> volume.Ended:
    """Run a program that may wait for a server, for so long at most.

    Its helpers, such as mount.nfs, are killed with it. It doesn't inherit our lock: else the next run would wait, too.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
            os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that can't be killed is left
                process.wait(KILL_SECONDS)
        output.seek(0)
        return volume.Ended(code, os.fsdecode(output.read()), "")


# --- mounting ---------------------------------------------------------------------------------------------------------


def mount_share(options: Options) -> None:
    """Mount the export, now and at each boot."""
    existing = mounted_at(options.mount)
    if existing is None:
        volume.check_own_path(options.mount)
        volume.check_empty(options.mount)
        check_fstab(options)
        connect(options.export)
        install_client()
        os.makedirs(options.mount, exist_ok=True)
        mount_now(options)
        volume.say(f"mounted {options.export} at {options.mount}")
    elif existing.is_nfs and without_slash(existing.source) == options.export:
        check_answers(options)
        check_fstab(options)
        volume.say(f"found it mounted at {options.mount}")
    else:
        volume.fail(
            f"{existing.source} is mounted at {options.mount} already, and not {options.export}",
            "unmount it, or choose another mount point",
        )
    give_to_owner(options)
    write_fstab(options)


def install_client() -> None:
    """Install NFS's client. Its package also starts rpcbind, open to the world, which NFS 4 doesn't need."""
    had_rpcbind = os.path.exists("/usr/sbin/rpcbind") or os.path.exists("/sbin/rpcbind")
    if volume.install({"mount.nfs": "nfs-common"}) and not had_rpcbind and volume.SYSTEMD.is_dir():
        volume.require("systemctl", "disable", "--now", "rpcbind.socket", "rpcbind.service")
        volume.say("stopped rpcbind, which came with nfs-common and isn't needed")


def connect(export: str) -> None:
    """Raise VolumeError with the reason if no server answers: `mount` would take minutes, and say less."""
    parsed = parse_export(export)
    assert parsed
    host = parsed[0]
    try:
        socket.create_connection((host, PORT), CONNECT_SECONDS).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, socket.timeout) else error.strerror or str(error)
        raise volume.VolumeError(
            5,
            f"the NFS server {host}, port {PORT}, can't be reached from this server: {reason}",
            "check that this server is on a network that reaches the share (at Chameleon, on a storage network: "
            '[network] usage_type = "storage"), and that the site\'s NFS server runs; then run this again',
        ) from None


def mount_now(options: Options) -> None:
    """Mount the export. The server may deny a new client for a moment."""
    end = time.monotonic() + DENIED_SECONDS
    while True:
        argv = ("mount", "-t", "nfs", "-o", f"{NFS_OPTIONS},retry=0", options.export, options.mount)
        ended = limited(options.seconds, *argv)
        if ended.code == 0:
            return
        if ended.code == TIMED_OUT:
            raise unanswered(options.export, options.seconds, "")
        if not is_denial(ended.said) or time.monotonic() > end:
            raise mount_error(options, ended.said)
        time.sleep(1)


def is_denial(said: str) -> bool:
    """Return whether a server denies a client. NFS 4 hides from it what it may not see."""
    return "access denied" in said or "Operation not permitted" in said or "No such file or directory" in said


def unanswered(what: str, seconds: int, mounted: str) -> volume.VolumeError:
    """Return the error for a server that doesn't answer, with the way out for a mounted share."""
    # umount unmounts at once, and then waits for the server to end its session; so does its helper, which isn't killed
    command = f"sudo timeout --signal=KILL 10 umount --internal-only --lazy {mounted}"
    give_up = f"; or give up what wasn't written: {command}" if mounted else ""
    return volume.VolumeError(
        5,
        f"{what}: its NFS server gave no answer within {seconds} s",
        f"wait until the site's NFS server answers, then run this again{give_up}",
    )


def mount_error(options: Options, said: str) -> volume.VolumeError:
    """Return the error for a refused mount."""
    what = f"{options.export} can't be mounted: {said or 'no reason is given'}"
    if is_denial(said):
        return volume.VolumeError(
            3,
            what,
            "check that the share exists, and that its access rules have this server's address as the NFS server sees "
            "it (openstack share access list)",
        )
    if "not supported" in said:
        return volume.VolumeError(3, what, "the NFS server lacks NFS 4.1: ask the site, or mount it by hand")
    if "tale file handle" in said:
        return volume.VolumeError(3, what, "the share was deleted or made again: check its export in the cloud")
    return volume.VolumeError(5, what, "dmesg may say more; check the site's NFS server, then run this again")


def check_answers(options: Options) -> None:
    """Raise VolumeError if a mounted share doesn't answer, or is no longer there."""
    ended = limited(options.seconds, "stat", "--file-system", options.mount)
    if ended.code == TIMED_OUT:
        raise unanswered(options.mount, options.seconds, options.mount)
    if ended.code:
        volume.fail(
            f"{options.mount} is mounted, and can't be read: {ended.said}",
            "unmount it (share.py unmount), then run this again",
        )


def give_to_owner(options: Options) -> None:
    """Give an empty share that belongs to root to its user, who couldn't write there otherwise."""
    if not options.user or os.stat(options.mount).st_uid != 0 or os.listdir(options.mount):
        return
    try:
        shutil.chown(options.mount, options.user, options.user)
    except LookupError:
        volume.fail(f"there is no user {options.user} here", "give --give-to the name of a user of this server")
    except PermissionError:  # a server that doesn't trust root
        volume.say(f"{options.mount} stays root's, since the NFS server doesn't let this server's root change it")
    else:
        volume.say(f"gave {options.mount} to {options.user}")


def is_ours(line: volume.FstabLine, options: Options) -> bool:
    """Return whether a line of /etc/fstab is ours, for this share or this mount point."""
    marked = [word for word in ",".join(line.fields[3:4]).split(",") if word.startswith(MARK)]
    return bool(marked) and (marked[0] == f"{MARK}{options.id}" or line.is_at(options.mount))


def check_fstab(options: Options) -> None:
    """Raise VolumeError if somebody else's line in /etc/fstab is for the mount point or the export."""
    for line in volume.read_fstab():
        same = line.is_at(options.mount) or line.fields[:1] == [options.export]
        if same and not is_ours(line, options):
            volume.fail(
                f"/etc/fstab has a line of somebody else for {options.export} or {options.mount}: {line.text}",
                "remove that line, or choose another mount point",
            )


def write_fstab(options: Options) -> None:
    """Put our line into /etc/fstab."""
    lines = volume.read_fstab()
    if options.line in [line.text for line in lines]:
        volume.say("found it in /etc/fstab")
        return
    others = [line for line in lines if not is_ours(line, options)]
    volume.replace_fstab([*others, volume.FstabLine(options.line)])
    volume.say("wrote it to /etc/fstab")


# --- unmounting -------------------------------------------------------------------------------------------------------


def unmount_share(options: Options) -> None:
    """Unmount the share, and remove our line."""
    lines = volume.read_fstab()
    ours = [line for line in lines if is_ours(line, options)]
    target = ours[0].fields[1] if ours else options.mount  # the declared one may have changed
    existing = mounted_at(target)
    if existing is None:
        volume.say(f"found it not mounted at {target}")
    elif not existing.is_nfs or (options.export and without_slash(existing.source) != options.export):
        volume.fail(
            f"{existing.source} is mounted at {target}, and isn't the share",
            "findmnt shows what is mounted where",
        )
    else:
        unmount_unused(existing, options.seconds)
    if ours:
        volume.replace_fstab([line for line in lines if line not in ours])
        volume.say("took it out of /etc/fstab")


def unmount_unused(mount: Mount, seconds: int) -> None:
    """Unmount a share. Raises VolumeError with its users if there are any."""
    if users := list_users(mount):
        volume.fail(f"{mount.target} is in use by {', '.join(users)}", "stop them, then run this again")
    ended = limited(seconds, "umount", "--no-canonicalize", mount.target)
    if ended.code == TIMED_OUT:
        raise unanswered(mount.target, seconds, mount.target)
    if ended.code:
        volume.fail(f"{mount.target} can't be unmounted: {ended.said}", "stop what uses it, then run this again")
    volume.say(f"unmounted {mount.target}")


COMMANDS: dict[str, Callable[[Options], None]] = {"mount": mount_share, "unmount": unmount_share}


def main(words: Sequence[str]) -> int:
    """Run a command, and return the exit code."""

    def command() -> None:
        options = parse_options(words)
        volume.start()
        COMMANDS[options.command](options)

    return volume.run_to_end(words, USAGE, command)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
