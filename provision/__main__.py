"""Makes, keeps and takes down what a declaration names: a VM, volumes, a bucket and its keys."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from larder import __version__
from larder.cli.front_doors import FRONT_DOORS
from larder.errors import ConfigurationError, InputError, ServiceError
from larder.progress import Reporter
from larder.stage import ended
from larder.terminal import Lines, as_json, escaped, lines, say
from provision import credentials, doctor, leases, machine, objects, plan, status, up, volumes
from provision import down as take_down
from provision.clouds import connect
from provision.declaration import MOST_HOURS, load, network
from provision.marks import Thing
from provision.stack import Stack

THING_TO_DO = 2
EXITS = (
    "Exit codes: 0 done; 2 wrong usage or configuration, or (plan) there is something to do; 3 something is missing, "
    "taken or not as declared; 5 a cloud or a connection failed: running again goes on; 130 interrupted: the same."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError.of_faults([message], next_step=f"see `{self.prog} --help`")


Run = Callable[[Stack, argparse.Namespace], int]
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[_Parser]


def parser() -> argparse.ArgumentParser:
    """The commands and their options; what runs each is its default `run`."""
    door = FRONT_DOORS.get(os.environ.get("LARDER_FRONT_DOOR", ""))
    program = f"{door} provision" if door else "python -m provision"
    top = _Parser(prog=program, description=__doc__, epilog=EXITS, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"larder {__version__}")
    top.add_argument("--file", "-f", type=Path, default=Path("provision.toml"),
                     help="the declaration; default provision.toml")  # fmt: skip
    top.add_argument("--adopt", action="store_true",
                     help="mark what has a declared name and carries no mark, and manage it")  # fmt: skip
    top.add_argument("--caller", type=_network, default=os.environ.get("LARDER_CALLER") or None, metavar="ADDRESS",
                     help="the address or network that this machine has at the cloud [LARDER_CALLER]")  # fmt: skip
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _stack_commands(commands)
    _server_commands(commands)
    _lease_commands(_group(commands, "lease", "the reservation"))
    _volume_commands(_group(commands, "volume", "block volumes"))
    _bucket_commands(_group(commands, "bucket", "the bucket"))
    _credentials_commands(_group(commands, "credentials", "S3 keys for the bucket"))
    return top


def _network(text: str) -> str:
    try:
        return network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 65535")
    return int(text)


def _gib(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _group(to: Commands, name: str, text: str) -> Commands:
    command = to.add_parser(name, help=text, description=text)
    return command.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)


def _add(to: Commands, name: str, run: Run, text: str, asks: bool = False) -> _Parser:
    command = to.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    if asks:
        command.add_argument("--yes", action="store_true", help="don't ask for the name")
    return command


def _stack_commands(to: Commands) -> None:
    _add(to, "doctor", _doctor, "look at all that `up` needs, and name the remedy of each fault")
    _add(to, "plan", _plan, "print what `up` would do; exit code 2 when there is something to do")
    up_command = _add(to, "up", _up, "find, create and wait until all is as declared")
    up_command.add_argument("--replace", action="store_true",
                            help="delete a server that isn't as declared or in ERROR; start another")  # fmt: skip
    _add(to, "status", _status, "what there is, declared or not").add_argument(
        "--json", action="store_true", help="for machines"
    )
    down = _add(to, "down", _down, "delete server, floating IP, lease and security groups; keep volumes and buckets",
                asks=True)  # fmt: skip
    down.add_argument("--delete-data", action="append", default=[], metavar="NAME",
                      help="also delete this volume or bucket")  # fmt: skip


def _server_commands(to: Commands) -> None:
    _add(to, "ssh", _ssh, "a shell on the server, or a command there").add_argument(
        "argv", nargs=argparse.REMAINDER, metavar="COMMAND",
        help="all words from the first on, joined by spaces for the server's shell, as OpenSSH does: `ssh 'a && b'`",
    )  # fmt: skip
    tunnel = _add(to, "tunnel", _tunnel, "lead a local port to Jupyter's on the server, through SSH, until Ctrl-C")
    tunnel.add_argument("--port", type=_port, default=8888, help="of Jupyter on the server; default 8888")
    tunnel.add_argument("--local-port", type=_port, help="on this machine; default the same")


def _lease_commands(to: Commands) -> None:
    extend = _add(to, "extend", _lease_extend, "move the lease's end")
    extend.add_argument("hours", type=float, help="by so many hours")


def _volume_commands(to: Commands) -> None:
    _add(to, "list", _volume_list, "the stack's volumes")
    texts: tuple[tuple[str, Run, str], ...] = (
        ("create", _volume_create, "make a declared volume"),
        ("attach", _volume_attach, "attach it to the server"),
        ("mount", _volume_mount, "mount it on the server; format it if it was made blank and never formatted"),
        ("unmount", _volume_unmount, "unmount it on the server"),
        ("detach", _volume_detach, "detach it from the server; refused while that uses it, or can't be asked"),
        ("grow", _volume_grow, "extend volume, partition and file system"),
        ("delete", _volume_delete, "delete it with its data"),
    )
    for name, run, text in texts:
        command = _add(to, name, run, text, asks=name == "delete")
        command.add_argument("name", help="the declared name")
        if name == "grow":
            command.add_argument("--gib", type=_gib, help="the new size; default the declared one")
        if name == "detach":
            command.add_argument("--force", action="store_true", help="without looking whether it is mounted")


def _bucket_commands(to: Commands) -> None:
    _add(to, "create", _bucket_create, "make the bucket")
    _add(to, "empty", _bucket_empty, "delete every object in the bucket", asks=True)
    _add(to, "delete", _bucket_delete, "delete the bucket, which must be empty", asks=True)


def _credentials_commands(to: Commands) -> None:
    _add(to, "create", _credentials_create,
         "make S3 keys, write them to .env and rclone's configuration, show them once")  # fmt: skip
    _add(to, "show", _credentials_show, "the access key and the files; no secret")
    _add(to, "revoke", _credentials_revoke, "delete the S3 keys at the cloud and from the files", asks=True)


def _doctor(stack: Stack, given: argparse.Namespace) -> int:
    code = 0
    for check in doctor.examine(stack):
        say(f"{'fault' if check.fault else 'ok':5}  {check.name}: {check.fault.what if check.fault else check.found}")
        if check.fault:
            say(f"         next step: {check.fault.next_step}")
            code = code or check.fault.exit_code
    return code


def _plan(stack: Stack, given: argparse.Namespace) -> int:
    steps = plan.plan(stack)
    say(status.table([(step.action, step.kind, step.name, step.detail) for step in steps]))
    return THING_TO_DO if any(step.to_do for step in steps) else 0


def _up(stack: Stack, given: argparse.Namespace) -> int:
    done = sum(step.to_do for step in up.up(stack, given.replace))
    stack.say("done", f"{stack.name} is as declared: {f'{done} things done' if done else 'nothing was to do'}")
    _show(stack, for_machines=False)
    return 0


def _status(stack: Stack, given: argparse.Namespace) -> int:
    _show(stack, given.json)
    return 0


def _show(stack: Stack, for_machines: bool) -> None:
    found = status.look(stack)
    say(
        Lines(as_json(found.json(), indent=1))
        if for_machines
        else status.as_table(found.things) or f"nothing carries the mark of {stack.name}"
    )
    for warning in found.warnings:
        stack.say("warning", warning)
    _refuse_unseen(found)


def _refuse_unseen(found: status.Status) -> None:
    """ServiceError when not everything could be asked: there may be more than was shown."""
    if found.unseen:
        listed = (f"  - {what}" for what in found.unseen)
        raise ServiceError(lines("not everything could be seen:", *listed), next_step="fix that, then run this again")


def _ssh(stack: Stack, given: argparse.Namespace) -> int:
    _warn(stack)
    return machine.reach(stack).interactive(given.argv)


def _tunnel(stack: Stack, given: argparse.Namespace) -> int:
    _warn(stack)
    local = given.local_port or given.port
    stack.say("tunnel", f"http://127.0.0.1:{local} is port {given.port} of the server, until Ctrl-C")
    return machine.reach(stack).tunnel(local, given.port)


def _warn(stack: Stack) -> None:
    """Say when the lease ends soon."""
    for lease in leases.find_all(stack) if stack.declaration.lease else ():
        if text := leases.warning(lease):
            stack.say("warning", text)


def _lease_extend(stack: Stack, given: argparse.Namespace) -> int:
    if not 0 < given.hours <= MOST_HOURS:
        raise ConfigurationError(
            f"{given.hours:g} hours: leases are extended", next_step=f"give a number above 0, at most {MOST_HOURS}"
        )
    say(leases.extend(stack, given.hours).thing.detail)
    return 0


def _volume_list(stack: Stack, given: argparse.Namespace) -> int:
    say(status.as_table(volumes.ours(stack)) or f"no volume carries the mark of {stack.name}")
    return 0


def _volume_create(stack: Stack, given: argparse.Namespace) -> int:
    say(up.bring_volume_up(stack, given.name).id)
    return 0


def _volume_attach(stack: Stack, given: argparse.Namespace) -> int:
    stack.declaration.volume(given.name)
    say(volumes.attach(stack, volumes.need(stack, given.name), machine.need_server(stack)).detail)
    return 0


def _volume_mount(stack: Stack, given: argparse.Namespace) -> int:
    machine.mount(stack, stack.declaration.volume(given.name))
    return 0


def _volume_unmount(stack: Stack, given: argparse.Namespace) -> int:
    machine.unmount(stack, stack.declaration.volume(given.name))
    return 0


def _volume_detach(stack: Stack, given: argparse.Namespace) -> int:
    if not given.force:
        machine.refuse_if_used(stack, stack.declaration.volume(given.name))
    say(volumes.detach(stack, volumes.need(stack, given.name)).status)
    return 0


def _volume_grow(stack: Stack, given: argparse.Namespace) -> int:
    wanted = stack.declaration.volume(given.name)
    grown = volumes.grow(stack, volumes.need(stack, given.name), given.gib or wanted.gib)
    if wanted.mount and volumes.server_of(grown):
        machine.grow(stack, wanted)
    say(grown.detail)
    return 0


def _volume_delete(stack: Stack, given: argparse.Namespace) -> int:
    found = volumes.need(stack, given.name)
    _confirm(given, f"{found}, {found.detail}, with all its data", given.name)
    volumes.delete(stack, found)
    return 0


def _need_ours(found: Thing) -> Thing:
    """What is about to be destroyed must carry our mark already: --adopt doesn't give it one here."""
    if not found.ours:
        raise InputError(
            f"{found} was not made by this stack: it is not deleted",
            next_step="`--adopt up` makes it this stack's; then run this again",
        )
    return found


def _need_bucket(stack: Stack) -> Thing:
    if stack.declaration.bucket is None:
        raise ConfigurationError(f"{stack.name} declares no bucket", next_step="declare it as [bucket]")
    found = objects.find(stack)
    if found is None:
        raise InputError(
            f"the bucket {stack.declaration.bucket.name} doesn't exist", next_step="`bucket create` or `up` makes it"
        )
    return found


def _bucket_create(stack: Stack, given: argparse.Namespace) -> int:
    if stack.declaration.bucket is None:
        _need_bucket(stack)
    found = objects.find(stack)
    if found is None or not found.ours:
        objects.create(stack)
    return 0


def _bucket_empty(stack: Stack, given: argparse.Namespace) -> int:
    found = _need_ours(_need_bucket(stack))
    _confirm(given, f"all of {found}: {found.detail}", found.name)
    say(f"{objects.empty(stack, found)} objects deleted")
    return 0


def _bucket_delete(stack: Stack, given: argparse.Namespace) -> int:
    found = _need_ours(_need_bucket(stack))
    _confirm(given, str(found), found.name)
    objects.delete(stack, found)
    return 0


def _need_credentials(stack: Stack) -> None:
    if stack.declaration.credentials is None:
        raise ConfigurationError(f"{stack.name} declares no credentials", next_step="declare them as [credentials]")


def _credentials_create(stack: Stack, given: argparse.Namespace) -> int:
    _need_credentials(stack)
    new = credentials.find(stack) is None
    keys = up.bring_credentials_up(stack)
    shown = (
        credentials.shown(credentials.settings(stack, keys)) if new else f"{keys.access} was there; the files have it"
    )
    say(*shown.split("\n"))
    return 0


def _credentials_show(stack: Stack, given: argparse.Namespace) -> int:
    _need_credentials(stack)
    keys = credentials.find(stack)
    if keys is None:
        raise InputError(f"{stack.name} has no S3 keys", next_step="`credentials create` makes them")
    say(f"access key {keys.access}; the files {'have' if credentials.up_to_date(stack, keys) else 'lack'} it")
    return 0


def _credentials_revoke(stack: Stack, given: argparse.Namespace) -> int:
    keys = credentials.find(stack)
    if keys is not None:
        _confirm(given, f"the S3 keys {keys.access}", stack.name)
        credentials.revoke(stack, keys)
    changed = credentials.remove(stack)  # last: keys that work are never lost from the files
    for path in changed:
        stack.say("write", f"{path}: the keys are out")
    if keys is None and not changed:
        stack.say("done", "there are no S3 keys to revoke")
    return 0


def _down(stack: Stack, given: argparse.Namespace) -> int:
    found = status.look(stack)
    removed = take_down.removals(stack, found, given.delete_data)
    stays = take_down.kept(found, removed)
    if stays:
        say("stays:", status.as_table(stays))
    if not removed:
        _refuse_unseen(found)
        stack.say("done", f"nothing of {stack.name} is to be removed")
        return 0
    for what in found.unseen:
        stack.say("warning", f"not seen: {what}")
    say("goes:", status.table([(item.verb, *status.row(item.thing)) for item in removed]))
    _confirm(given, f"{len(removed)} things of the stack {stack.name}", stack.name)
    take_down.down(stack, removed, found)
    stack.say("done", f"{len(removed)} things removed, {len(stays)} stay")
    return 0


def _confirm(given: argparse.Namespace, what: str, name: str) -> None:
    """Ask for the name, unless --yes; ConfigurationError where the answer is another one."""
    if given.yes:
        return
    sys.stderr.write(escaped(f"This deletes {what}. Type {name} to go on: "))
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise ConfigurationError("not confirmed: nothing was deleted", next_step=f"type {name}, or give --yes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reporter = Reporter("provision", "json" if os.environ.get("LARDER_LOG") == "json" else "auto")
    words = sys.argv[1:] if argv is None else argv
    return ended(reporter, lambda: _run(words, reporter),
                 "interrupted; what was made is marked: run the same command again, it goes on")  # fmt: skip


def _run(words: Sequence[str], reporter: Reporter) -> int:
    given = parser().parse_args(words)
    declared = load(given.file)
    stack = Stack(declared, connect(declared.sites, declared.limits), reporter, given.adopt, given.caller)
    return int(given.run(stack, given))


if __name__ == "__main__":
    sys.exit(main())
