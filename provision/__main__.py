"""Create and delete what a declaration names: a VM, volumes, a bucket and its keys."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from larder import __version__
from larder.cli.invocation import INVOCATIONS
from larder.errors import ConfigurationError, InputError, ServiceError
from larder.progress import Reporter
from larder.stage import run_until_end
from larder.terminal import Lines, as_json, escape, join_lines, print_escaped
from provision import credentials, doctor, leases, objects, plan, server_setup, status, up, volumes
from provision import down as take_down
from provision.clouds import configure_clouds
from provision.concurrency import lock_stack
from provision.declaration import MAX_HOURS, load_declaration, parse_network
from provision.marks import Resource
from provision.stack import Stack

EXIT_CHANGES_PENDING = 2
EXITS = (
    "Exit codes: 0 done; 2 wrong usage or configuration, or (plan) there is something to do; 3 something is missing, "
    "taken or not as declared; 5 a cloud or a connection failed (run again to resume); 130 interrupted (run again to "
    "resume)."
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
    top.set_defaults(file=Path("provision.toml"), adopt=False, caller=os.environ.get("LARDER_CALLER") or None)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _stack_commands(commands)
    _server_commands(commands)
    _lease_commands(_group(commands, "lease", "the reservation"))
    _volume_commands(_group(commands, "volume", "block volumes"))
    _bucket_commands(_group(commands, "bucket", "the bucket"))
    _credentials_commands(_group(commands, "credentials", "S3 keys for the bucket"))
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
        type=_network,
        default=argparse.SUPPRESS,
        metavar="ADDRESS",
        help="this machine's address or network, as seen from the cloud [LARDER_CALLER]",
    )


def _network(text: str) -> str:
    try:
        return parse_network(text)
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
    _add(
        subparsers, "doctor", _doctor, "check everything that `up` needs, and say how to fix each fault", changes=False
    )
    _add(subparsers, "plan", _plan, "print what `up` would do; exit code 2 if there is something to do", changes=False)
    up_command = _add(subparsers, "up", _up, "bring everything to its declared state, and wait for it")
    up_command.add_argument(
        "--replace", action="store_true", help="replace a server that isn't as declared or is in ERROR"
    )
    _add(subparsers, "status", _status, "list the stack's resources, declared or not", changes=False).add_argument(
        "--json", action="store_true", help="print JSON"
    )
    down = _add(
        subparsers,
        "down",
        _down,
        "delete server, floating IP, lease, security groups; keep volumes, buckets",
        asks=True,
    )
    down.add_argument(
        "--delete-data", action="append", default=[], metavar="NAME", help="also delete this volume or bucket"
    )


def _server_commands(subparsers: Commands) -> None:
    _add(subparsers, "ssh", _ssh, "open a shell on the server, or run a command there", changes=False).add_argument(
        "argv",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="the words are joined by spaces for the server's shell, as by OpenSSH: `ssh 'a && b'`",
    )
    tunnel = _add(
        subparsers,
        "tunnel",
        _tunnel,
        "forward a local port to Jupyter's on the server through SSH, until Ctrl-C",
        changes=False,
    )
    tunnel.add_argument("--port", type=_port, default=8888, help="of Jupyter on the server; default 8888")
    tunnel.add_argument("--local-port", type=_port, help="on this machine; default the same")


def _lease_commands(subparsers: Commands) -> None:
    extend = _add(subparsers, "extend", _lease_extend, "move the lease's end")
    extend.add_argument("hours", type=float, help="number of hours to add")


def _volume_commands(subparsers: Commands) -> None:
    _add(subparsers, "list", _volume_list, "list the stack's volumes", changes=False)
    texts: tuple[tuple[str, CommandFunction, str], ...] = (
        ("create", _volume_create, "create a declared volume"),
        ("attach", _volume_attach, "attach it to the server"),
        ("mount", _volume_mount, "mount it on the server; format it if it was created blank and never formatted"),
        ("unmount", _volume_unmount, "unmount it on the server"),
        ("detach", _volume_detach, "detach it from the server, unless the server uses it or doesn't answer"),
        ("grow", _volume_grow, "extend volume, partition and file system"),
        ("delete", _volume_delete, "delete it with its data"),
    )
    for name, run, text in texts:
        command = _add(subparsers, name, run, text, asks=name == "delete")
        command.add_argument("name", help="the declared name")
        if name == "grow":
            command.add_argument("--gib", type=_gib, help="the new size; default the declared one")
        if name == "detach":
            command.add_argument("--force", action="store_true", help="don't check whether it is mounted")


def _bucket_commands(subparsers: Commands) -> None:
    _add(subparsers, "create", _bucket_create, "create the bucket")
    _add(subparsers, "empty", _bucket_empty, "delete every object in the bucket", asks=True)
    _add(subparsers, "delete", _bucket_delete, "delete the bucket, which must be empty", asks=True)


def _credentials_commands(subparsers: Commands) -> None:
    _add(
        subparsers,
        "create",
        _credentials_create,
        "create S3 keys, write them to .env and rclone's configuration, and show them once",
    )
    _add(
        subparsers,
        "show",
        _credentials_show,
        "show the access key, and whether the files have it; no secret",
        changes=False,
    )
    _add(subparsers, "revoke", _credentials_revoke, "delete the S3 keys at the cloud and from the files", asks=True)


def _doctor(stack: Stack, given: argparse.Namespace) -> int:
    code = 0
    for check in doctor.run_checks(stack):
        print_escaped(
            f"{'fault' if check.fault else 'ok':5}  {check.name}: {check.fault.what if check.fault else check.found}"
        )
        if check.fault:
            print_escaped(f"         next step: {check.fault.next_step}")
            code = code or check.fault.exit_code
    return code


def _plan(stack: Stack, given: argparse.Namespace) -> int:
    steps = plan.plan(stack)
    print_escaped(status.table([(step.action, step.kind, step.name, step.detail) for step in steps]))
    return EXIT_CHANGES_PENDING if any(step.to_do for step in steps) else 0


def _up(stack: Stack, given: argparse.Namespace) -> int:
    done = sum(step.to_do for step in up.up(stack, given.replace))
    stack.report("done", f"{stack.name} is as declared: {f'{done} changes' if done else 'nothing to do'}")
    _show(stack, for_machines=False)
    return 0


def _status(stack: Stack, given: argparse.Namespace) -> int:
    _show(stack, given.json)
    return 0


def _show(stack: Stack, for_machines: bool) -> None:
    stack_status = status.read_status(stack)
    print_escaped(
        Lines(as_json(stack_status.json(), indent=1))
        if for_machines
        else status.as_table(stack_status.resources) or f"no resource carries the mark of {stack.name}"
    )
    for warning in stack_status.warnings:
        stack.report("warning", warning)
    _note_not_offered(stack, stack_status)
    _refuse_unseen(stack_status)


def _note_not_offered(stack: Stack, stack_status: status.Status) -> None:
    for line in stack_status.not_offered:
        stack.report("note", line)


def _refuse_unseen(stack_status: status.Status) -> None:
    """Raise ServiceError if a site could not be queried, since more may exist than was shown."""
    if stack_status.unseen:
        listed = (f"  - {what}" for what in stack_status.unseen)
        raise ServiceError(
            join_lines("some resources could not be listed:", *listed), next_step="fix that, then run this again"
        )


def _ssh(stack: Stack, given: argparse.Namespace) -> int:
    _warn(stack)
    return server_setup.make_ssh_client(stack).interactive(given.argv)


def _tunnel(stack: Stack, given: argparse.Namespace) -> int:
    _warn(stack)
    local = given.local_port or given.port
    stack.report("tunnel", f"http://127.0.0.1:{local} is port {given.port} of the server, until Ctrl-C")
    return server_setup.make_ssh_client(stack).tunnel(local, given.port)


def _warn(stack: Stack) -> None:
    """Warn if the lease ends soon."""
    for lease in leases.find_all(stack) if stack.declaration.lease else ():
        if text := leases.expiry_warning(lease):
            stack.report("warning", text)


def _lease_extend(stack: Stack, given: argparse.Namespace) -> int:
    if not 0 < given.hours <= MAX_HOURS:
        raise ConfigurationError(
            f"{given.hours:g} hours: leases are extended", next_step=f"give a number above 0, at most {MAX_HOURS}"
        )
    print_escaped(leases.extend(stack, given.hours).resource.detail)
    return 0


def _volume_list(stack: Stack, given: argparse.Namespace) -> int:
    print_escaped(status.as_table(volumes.list_ours(stack)) or f"no volume carries the mark of {stack.name}")
    return 0


def _volume_create(stack: Stack, given: argparse.Namespace) -> int:
    print_escaped(up.ensure_volume(stack, given.name).id)
    return 0


def _volume_attach(stack: Stack, given: argparse.Namespace) -> int:
    stack.declaration.volume(given.name)
    print_escaped(
        volumes.attach(stack, volumes.require_volume(stack, given.name), server_setup.require_server(stack)).detail
    )
    return 0


def _volume_mount(stack: Stack, given: argparse.Namespace) -> int:
    server_setup.mount(stack, stack.declaration.volume(given.name))
    return 0


def _volume_unmount(stack: Stack, given: argparse.Namespace) -> int:
    server_setup.unmount(stack, stack.declaration.volume(given.name))
    return 0


def _volume_detach(stack: Stack, given: argparse.Namespace) -> int:
    if not given.force:
        server_setup.require_unused(stack, stack.declaration.volume(given.name))
    print_escaped(volumes.detach(stack, volumes.require_volume(stack, given.name)).status)
    return 0


def _volume_grow(stack: Stack, given: argparse.Namespace) -> int:
    declared = stack.declaration.volume(given.name)
    grown = volumes.grow(stack, volumes.require_volume(stack, given.name), given.gib or declared.gib)
    if declared.mount and volumes.server_of(grown):
        server_setup.grow(stack, declared)
    print_escaped(grown.detail)
    return 0


def _volume_delete(stack: Stack, given: argparse.Namespace) -> int:
    volume = volumes.require_volume(stack, given.name)
    _confirm(given, f"{volume}, {volume.detail}, with all its data", given.name)
    volumes.delete(stack, volume)
    return 0


def _require_ours(resource: Resource) -> Resource:
    """Raise InputError unless the resource already carries our mark; --adopt doesn't apply to deletions."""
    if not resource.ours:
        raise InputError(
            f"{resource} was not created by this stack: it is not deleted",
            next_step="run `--adopt up` to mark it as this stack's, then run this again",
        )
    return resource


def _require_bucket(stack: Stack) -> Resource:
    if stack.declaration.bucket is None:
        raise ConfigurationError(f"{stack.name} declares no bucket", next_step="declare it as [bucket]")
    bucket = objects.find(stack, measure=True)
    if bucket is None:
        raise InputError(
            f"the bucket {stack.declaration.bucket.name} doesn't exist", next_step="run `bucket create` or `up`"
        )
    return bucket


def _bucket_create(stack: Stack, given: argparse.Namespace) -> int:
    if stack.declaration.bucket is None:
        _require_bucket(stack)
    bucket = objects.find(stack)
    if bucket is None or not bucket.ours:
        objects.create(stack)
    return 0


def _bucket_empty(stack: Stack, given: argparse.Namespace) -> int:
    bucket = _require_ours(_require_bucket(stack))
    _confirm(given, f"all of {bucket}: {bucket.detail}", bucket.name)
    print_escaped(objects.empty(stack, bucket))
    return 0


def _bucket_delete(stack: Stack, given: argparse.Namespace) -> int:
    bucket = _require_ours(_require_bucket(stack))
    _confirm(given, str(bucket), bucket.name)
    objects.delete(stack, bucket)
    return 0


def _require_credentials(stack: Stack) -> None:
    if stack.declaration.credentials is None:
        raise ConfigurationError(f"{stack.name} declares no credentials", next_step="declare them as [credentials]")


def _credentials_create(stack: Stack, given: argparse.Namespace) -> int:
    _require_credentials(stack)
    new = credentials.find(stack) is None
    keys = up.ensure_credentials(stack)
    text = (
        credentials.format_settings(credentials.env_settings(stack, keys))
        if new
        else f"{keys.access} existed; the files have it"
    )
    print_escaped(*text.split("\n"))
    return 0


def _credentials_show(stack: Stack, given: argparse.Namespace) -> int:
    _require_credentials(stack)
    keys = credentials.find(stack)
    if keys is None:
        raise InputError(f"{stack.name} has no S3 keys", next_step="run `credentials create`")
    print_escaped(
        f"access key {keys.access}; the files {'have' if credentials.are_files_current(stack, keys) else 'lack'} it"
    )
    return 0


def _credentials_revoke(stack: Stack, given: argparse.Namespace) -> int:
    keys = credentials.find(stack)
    if keys is not None:
        _confirm(given, f"the S3 keys {keys.access}", stack.name)
        credentials.revoke(stack, keys)
    changed = credentials.remove_from_files(stack)  # last, so that the files never lose keys that still work
    for path in changed:
        stack.report("write", f"{path} without the S3 keys")
    if keys is None and not changed:
        stack.report("done", "there are no S3 keys to revoke")
    return 0


def _down(stack: Stack, given: argparse.Namespace) -> int:
    stack_status = status.read_status(stack)
    removed = take_down.removals(stack, stack_status, given.delete_data)
    kept = take_down.kept(stack_status, removed)
    _note_not_offered(stack, stack_status)
    if kept:
        print_escaped("kept:", status.as_table(kept))
    if not removed:
        _refuse_unseen(stack_status)
        stack.report("done", f"{stack.name} has nothing to remove")
        return 0
    for what in stack_status.unseen:
        stack.report("warning", f"not listed: {what}")
    print_escaped("to be deleted:", status.table([(item.verb, *status.row(item.resource)) for item in removed]))
    _confirm(given, f"{len(removed)} resources of the stack {stack.name}", stack.name)
    take_down.down(stack, removed, stack_status)
    stack.report("done", f"{len(removed)} resources removed, {len(kept)} kept")
    return 0


def _confirm(given: argparse.Namespace, what: str, name: str) -> None:
    """Ask for the name, unless --yes is given. Raises ConfigurationError for any other answer."""
    if given.yes:
        return
    sys.stderr.write(escape(f"This deletes {what}. Type {name} to continue: "))
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise ConfigurationError("not confirmed: nothing was deleted", next_step=f"type {name}, or give --yes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
    with lock_stack(stack, given.program) if given.changes else nullcontext():
        return int(given.run(stack, given))


if __name__ == "__main__":
    sys.exit(main())
