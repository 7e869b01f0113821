"""Create and delete what a declaration names: a VM, volumes, shares, a bucket and its keys."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from larder import __version__
from larder.cli.invocation import INVOCATIONS
from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.stage import run_until_end
from provision import commands
from provision.caller import parse_callers
from provision.clouds import configure_clouds
from provision.concurrency import lock_stack
from provision.declaration import load_declaration
from provision.settle import settle
from provision.stack import Stack

EXITS = (
    "Exit codes: 0 done; 2 wrong usage or configuration, or a refused login or right; 3 something is missing, taken, "
    "refused or not as declared; 5 a cloud or a connection failed (run again to resume); 6 there is something to do: "
    "(plan) for `up`, (up) once the lease begins; 130 interrupted (run again to resume)."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError.of_faults([message], next_step=f"see `{self.prog} --help`")


CommandFunction = Callable[[Stack, argparse.Namespace], int]
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[_Parser]


def parser() -> argparse.ArgumentParser:
    """Return the parser. Each command's default `run` is the function that runs it."""
    invocation = INVOCATIONS.get(os.environ.get("LARDER_FRONT_DOOR", ""))
    program = f"{invocation} provision" if invocation else "python -m provision"
    top = _Parser(prog=program, description=__doc__, epilog=EXITS, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"larder {__version__}")
    _common_options(top)
    top.set_defaults(file=Path("provision.toml"), adopt=False, caller=os.environ.get("LARDER_CALLER") or ())
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _stack_commands(subparsers)
    _connection_commands(subparsers)
    _server_commands(_group(subparsers, "server", "the server alone"))
    _lease_commands(_group(subparsers, "lease", "the reservation"))
    _volume_commands(_group(subparsers, "volume", "block volumes"))
    _share_commands(_group(subparsers, "share", "shared file systems"))
    _bucket_commands(_group(subparsers, "bucket", "the bucket"))
    _credentials_commands(_group(subparsers, "credentials", "S3 keys for the bucket"))
    return top


def _common_options(command: argparse.ArgumentParser) -> None:
    """Add the options that may stand before and after the command; the last one counts."""
    command.add_argument(
        "--file", "-f", type=Path, default=argparse.SUPPRESS, help="the declaration; default provision.toml"
    )
    command.add_argument(
        "--adopt",
        action="store_true",
        default=argparse.SUPPRESS,
        help="mark and manage resources that have a declared name but no mark",
    )
    command.add_argument(
        "--caller",
        type=_callers,
        default=argparse.SUPPRESS,
        metavar="ADDRESS[,ADDRESS]",
        help="the addresses or networks that `caller` stands for, as seen from the cloud; `here` is this machine's "
        "[LARDER_CALLER]",
    )


def _callers(text: str) -> tuple[str, ...]:
    try:
        return parse_callers(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 65535")
    return int(text)


def _gib(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _group(subparsers: Commands, name: str, text: str) -> Commands:
    command = subparsers.add_parser(name, help=text, description=text)
    _common_options(command)
    return command.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)


def _add(
    subparsers: Commands, name: str, run: CommandFunction, text: str, asks: bool = False, changes: bool = True
) -> _Parser:
    command = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run, changes=changes, program=command.prog)
    _common_options(command)
    if asks:
        command.add_argument("--yes", action="store_true", help="don't ask for the name")
    return command


def _stack_commands(subparsers: Commands) -> None:
    text = "check everything that `up` needs, and say how to fix each fault"
    _add(subparsers, "doctor", commands.run_doctor, text, changes=False)
    text = "print what `up` would do; exit code 6 if there is something to do"
    plan = _add(subparsers, "plan", commands.run_plan, text, changes=False)
    up = _add(subparsers, "up", commands.run_up, "bring everything to its declared state, and wait for it")
    up.add_argument("--replace", action="store_true", help="replace a server that isn't as declared or is in ERROR")
    up.add_argument("--wait", action="store_true", help="wait for a lease that begins later, however long")
    text = "list the stack's resources, declared or not"
    status = _add(subparsers, "status", commands.run_status, text, changes=False)
    for command in (plan, up, status):
        command.add_argument("--json", action="store_true", help="print JSON")
    text = "delete server, floating IP, lease, security groups; keep volumes, shares, buckets"
    down = _add(subparsers, "down", commands.run_down, text, asks=True)
    down.add_argument(
        "--delete-data", action="append", default=[], metavar="NAME", help="also delete this volume, share or bucket"
    )


def _server_commands(subparsers: Commands) -> None:
    text = "delete the server, and keep lease, address and volumes for the next one"
    _add(subparsers, "delete", commands.server_delete, text, asks=True)
    text = "create the server on the lease, with the address and the volumes, and set it up"
    _add(subparsers, "create", commands.server_create, text)


def _connection_commands(subparsers: Commands) -> None:
    text = "open a shell on the server, or run a command there"
    _add(subparsers, "ssh", commands.run_ssh, text, changes=False).add_argument(
        "argv",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="the words are joined by spaces for the server's shell, as by OpenSSH: `ssh 'a && b'`",
    )
    tunnel = _add(
        subparsers,
        "tunnel",
        commands.run_tunnel,
        "forward a local port to Jupyter's on the server through SSH, until Ctrl-C",
        changes=False,
    )
    tunnel.add_argument("--port", type=_port, default=8888, help="of Jupyter on the server; default 8888")
    tunnel.add_argument("--local-port", type=_port, help="on this machine; default the same")


def _lease_commands(subparsers: Commands) -> None:
    extend = _add(subparsers, "extend", commands.lease_extend, "move the lease's end")
    extend.add_argument("hours", type=float, help="number of hours to add")


def _volume_commands(subparsers: Commands) -> None:
    _add(subparsers, "list", commands.volume_list, "list the stack's volumes", changes=False)
    texts: tuple[tuple[str, CommandFunction, str], ...] = (
        ("create", commands.volume_create, "create a declared volume"),
        ("attach", commands.volume_attach, "attach it to the server"),
        (
            "mount",
            commands.volume_mount,
            "mount it on the server; format it if it is new",
        ),
        ("unmount", commands.volume_unmount, "unmount it on the server"),
        ("detach", commands.volume_detach, "detach it from the server, unless the server uses it or doesn't answer"),
        ("grow", commands.volume_grow, "extend volume, partition and file system"),
        ("delete", commands.volume_delete, "delete it with its data"),
    )
    added = _add_named(subparsers, texts)
    added["detach"].add_argument("--force", action="store_true", help="don't check whether it is mounted")


def _add_named(subparsers: Commands, texts: Sequence[tuple[str, CommandFunction, str]]) -> dict[str, _Parser]:
    """Add commands that take the name of a volume or a share."""
    added = {name: _add(subparsers, name, run, text, asks=name == "delete") for name, run, text in texts}
    for command in added.values():
        command.add_argument("name", help="the declared name")
    added["grow"].add_argument("--gib", type=_gib, help="the new size; default the declared one")
    return added


def _share_commands(subparsers: Commands) -> None:
    _add(subparsers, "list", commands.share_list, "list the stack's shares and who may use them", changes=False)
    texts: tuple[tuple[str, CommandFunction, str], ...] = (
        ("create", commands.share_create, "create a declared share"),
        ("mount", commands.share_mount, "give the server access to it, and mount it there"),
        ("unmount", commands.share_unmount, "unmount it on the server, and remove the server's access"),
        ("grow", commands.share_grow, "extend it"),
        ("delete", commands.share_delete, "delete it with its data"),
    )
    _add_named(subparsers, texts)


def _bucket_commands(subparsers: Commands) -> None:
    _add(subparsers, "create", commands.bucket_create, "create the bucket")
    _add(
        subparsers,
        "empty",
        commands.bucket_empty,
        "delete everything in the bucket",
        asks=True,
    )
    _add(subparsers, "delete", commands.bucket_delete, "delete the bucket, which must be empty", asks=True)


def _credentials_commands(subparsers: Commands) -> None:
    _add(
        subparsers,
        "create",
        commands.credentials_create,
        "create S3 keys, write them to .env and rclone's configuration, and show them once",
    )
    _add(
        subparsers,
        "show",
        commands.credentials_show,
        "show the access key, and whether the files have it; no secret",
        changes=False,
    )
    _add(
        subparsers,
        "revoke",
        commands.credentials_revoke,
        "delete the S3 keys, also from the files",
        asks=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a shell's background
            signal.signal(number, signal.default_int_handler)
    reporter = Reporter("provision", "json" if os.environ.get("LARDER_LOG") == "json" else "auto")
    words = sys.argv[1:] if argv is None else argv
    return run_until_end(
        reporter,
        lambda: _run(words, reporter),
        "interrupted; all created resources are marked: run the same command again to resume",
    )


def _run(words: Sequence[str], reporter: Reporter) -> int:
    given = parser().parse_args(words)
    declared = load_declaration(given.file)
    stack = Stack(declared, configure_clouds(declared.sites, declared.limits), reporter, given.adopt, given.caller)
    if not given.changes:
        return int(given.run(stack, given))
    with lock_stack(stack, given.program):
        settle(stack)
        return int(given.run(stack, given))


if __name__ == "__main__":
    sys.exit(main())
