"""What each command does: every function takes the stack and the parsed command line, and returns an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from larder.errors import ConfigurationError, InputError, ServiceError
from larder.terminal import Lines, as_json, escape, join_lines, print_escaped
from provision import (
    credentials,
    doctor,
    extension,
    leases,
    objects,
    plan,
    server_setup,
    servers,
    shares,
    status,
    up,
    volumes,
)
from provision import down as take_down
from provision.declaration import MAX_HOURS
from provision.leases import LeaseBeginsLaterError
from provision.marks import Resource
from provision.stack import Stack

EXIT_CHANGES_PENDING = 6
"""No error, but there is something to do: after `plan` for `up`; after `up` once the lease begins."""


def run_doctor(stack: Stack, given: argparse.Namespace) -> int:
    """Print what was checked, with the remedy of each fault; return the first fault's exit code."""
    code = 0
    for check in doctor.run_checks(stack):
        print_escaped(
            f"{'fault' if check.fault else 'ok':5}  {check.name}: {check.fault.what if check.fault else check.found}"
        )
        if check.fault:
            print_escaped(f"         next step: {check.fault.next_step}")
            code = code or check.fault.exit_code
    return code


def run_plan(stack: Stack, given: argparse.Namespace) -> int:
    """Print what `up` would do; return EXIT_CHANGES_PENDING if there is something to do."""
    steps = plan.plan(stack)
    if given.json:
        print_escaped(Lines(as_json({"stack": stack.name, **plan.as_fields(steps)}, indent=1)))
    else:
        print_escaped(status.table([(step.action, step.kind, step.name, step.detail) for step in steps]))
        print_escaped(plan.summarize(steps))
    return EXIT_CHANGES_PENDING if any(step.to_do for step in steps) else 0


def run_up(stack: Stack, given: argparse.Namespace) -> int:
    """Bring everything to its declared state, and print it."""
    try:
        steps = up.up(stack, given.replace, given.wait)
    except LeaseBeginsLaterError as later:
        _show(stack, given.json)
        return _begins_later(stack, later)
    done = sum(step.to_do for step in steps)
    stack.report("done", f"{stack.name} is as declared: {f'{done} changes' if done else 'nothing to do'}")
    _show(stack, given.json, plan.as_fields(steps))
    return 0


def _begins_later(stack: Stack, later: LeaseBeginsLaterError) -> int:
    stack.report("waiting", f"{later.what}, and then the server is created: {later.next_step}")
    return EXIT_CHANGES_PENDING


def run_status(stack: Stack, given: argparse.Namespace) -> int:
    """Print the stack's resources."""
    _show(stack, given.json)
    return 0


def _show(stack: Stack, for_machines: bool, more: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Print all resources; as JSON, with more fields."""
    stack_status = status.read_status(stack)
    print_escaped(
        Lines(as_json({"stack": stack.name, **more, **stack_status.json()}, indent=1))
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


def server_delete(stack: Stack, given: argparse.Namespace) -> int:
    """Delete the server alone, after asking: lease, address and volumes stay for the next one."""
    server = servers.find(stack)
    if server is None:
        stack.report("done", f"{stack.name} has no server")
        return 0
    if server.adopted or not server.ours:
        raise InputError(f"{server} was created by someone else", next_step="`down` removes this stack's mark from it")
    root = "with its root disk; " if servers.deletes_root_disk(server) else ""
    _confirm(given, f"{server}, {root}lease, address and volumes stay", stack.name)
    up.delete_server(stack, server, "lease, address and volumes stay")
    return 0


def server_create(stack: Stack, given: argparse.Namespace) -> int:
    """Create the server on the lease, with the address and the volumes that are there, and set it up."""
    if stack.declaration.server is None:
        raise ConfigurationError(f"{stack.name} declares no server", next_step="declare it as [server]")
    try:
        print_escaped(up.create_server(stack).id)
    except LeaseBeginsLaterError as later:
        return _begins_later(stack, later)
    return 0


def run_ssh(stack: Stack, given: argparse.Namespace) -> int:
    """Open a shell on the server, or run a command there."""
    _warn(stack)
    return server_setup.make_ssh_client(stack).interactive(given.argv)


def run_tunnel(stack: Stack, given: argparse.Namespace) -> int:
    """Forward a local port to one of the server's."""
    _warn(stack)
    local = given.local_port or given.port
    stack.report("tunnel", f"http://127.0.0.1:{local} is port {given.port} of the server, until Ctrl-C")
    return server_setup.make_ssh_client(stack).tunnel(local, given.port)


def _warn(stack: Stack) -> None:
    """Warn if the lease ends soon."""
    for lease in [*leases.find_all(stack), *leases.list_used(stack)] if stack.declaration.lease else ():
        if text := leases.expiry_warning(lease):
            stack.report("warning", text)


def lease_extend(stack: Stack, given: argparse.Namespace) -> int:
    """Move the lease's end."""
    if not 0 < given.hours <= MAX_HOURS:
        raise ConfigurationError(
            f"{given.hours:g} hours: leases are extended", next_step=f"give a number above 0, at most {MAX_HOURS}"
        )
    print_escaped(leases.extend(stack, given.hours).resource.detail)
    extension.remove(stack.state_folder)  # last: else the next run could not tell that this one is done
    return 0


def volume_list(stack: Stack, given: argparse.Namespace) -> int:
    """Print the stack's volumes."""
    print_escaped(status.as_table(volumes.list_ours(stack)) or f"no volume carries the mark of {stack.name}")
    return 0


def volume_create(stack: Stack, given: argparse.Namespace) -> int:
    """Create a declared volume, and print its id."""
    print_escaped(up.ensure_volume(stack, given.name).id)
    return 0


def volume_attach(stack: Stack, given: argparse.Namespace) -> int:
    """Attach a volume to the server."""
    stack.declaration.volume(given.name)
    print_escaped(
        volumes.attach(stack, volumes.require_volume(stack, given.name), server_setup.require_server(stack)).detail
    )
    return 0


def volume_mount(stack: Stack, given: argparse.Namespace) -> int:
    """Mount a volume on the server."""
    server_setup.mount(stack, stack.declaration.volume(given.name))
    return 0


def volume_unmount(stack: Stack, given: argparse.Namespace) -> int:
    """Unmount a volume on the server."""
    server_setup.unmount(stack, stack.declaration.volume(given.name))
    return 0


def volume_detach(stack: Stack, given: argparse.Namespace) -> int:
    """Detach a volume, unless the server uses it."""
    if not given.force:
        server_setup.require_unused(stack, stack.declaration.volume(given.name))
    print_escaped(volumes.detach(stack, volumes.require_volume(stack, given.name)).status)
    return 0


def volume_grow(stack: Stack, given: argparse.Namespace) -> int:
    """Extend a volume, its partition and its file system."""
    declared = stack.declaration.volume(given.name)
    grown = volumes.grow(stack, volumes.require_volume(stack, given.name), given.gib or declared.gib)
    if declared.mount and volumes.server_of(grown):
        server_setup.grow(stack, declared)
    print_escaped(grown.detail)
    return 0


def volume_delete(stack: Stack, given: argparse.Namespace) -> int:
    """Delete a volume with its data, after asking."""
    if given.name in {item.name for item in stack.declaration.volumes} and volumes.find(stack, given.name) is None:
        stack.report("done", f"there is no volume {given.name}")
        return 0
    volume = volumes.require_volume(stack, given.name)
    _confirm(given, f"{volume}, {volume.detail}, with all its data", given.name)
    volumes.delete(stack, volume)
    return 0


def share_list(stack: Stack, given: argparse.Namespace) -> int:
    """Print the stack's shares, with all their access rules and exports."""
    ours = shares.list_ours(stack)
    if not ours:
        print_escaped(f"no share carries the mark of {stack.name}")
        return 0
    rows = [status.row(item) for share in ours for item in (share, *shares.access_rules(stack, share))]
    print_escaped(status.table(rows))
    return 0


def share_create(stack: Stack, given: argparse.Namespace) -> int:
    """Create a declared share, and print its id."""
    print_escaped(up.ensure_share(stack, given.name).id)
    return 0


def share_mount(stack: Stack, given: argparse.Namespace) -> int:
    """Give the server access to a share, and mount it there."""
    server_setup.mount_share(stack, stack.declaration.share(given.name))
    return 0


def share_unmount(stack: Stack, given: argparse.Namespace) -> int:
    """Unmount a share on the server, and remove the server's access."""
    server_setup.unmount_share(stack, stack.declaration.share(given.name))
    return 0


def share_grow(stack: Stack, given: argparse.Namespace) -> int:
    """Extend a share."""
    declared = stack.declaration.share(given.name)
    print_escaped(shares.grow(stack, shares.require_share(stack, given.name), given.gib or declared.gib).detail)
    return 0


def share_delete(stack: Stack, given: argparse.Namespace) -> int:
    """Delete a share with its data, after asking."""
    if given.name in {item.name for item in stack.declaration.shares} and shares.find(stack, given.name) is None:
        stack.report("done", f"there is no share {given.name}")
        return 0
    share = shares.require_share(stack, given.name)
    others = [rule.raw["access_to"] for rule in shares.access_rules(stack, share) if not rule.ours]
    also = f", which {', '.join(others)} may use, too" if others else ""
    _confirm(given, f"{share}, {share.detail}{also}, with all its data", given.name)
    shares.delete(stack, share)
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


def bucket_create(stack: Stack, given: argparse.Namespace) -> int:
    """Create the bucket."""
    if stack.declaration.bucket is None:
        _require_bucket(stack)
    bucket = objects.find(stack)
    if bucket is None or not bucket.ours:
        objects.create(stack)
    return 0


def bucket_empty(stack: Stack, given: argparse.Namespace) -> int:
    """Delete everything in the bucket, after asking, and print the numbers."""
    bucket = _require_ours(_require_bucket(stack))
    _confirm(given, f"all of {bucket}: {bucket.detail}", bucket.name)
    print_escaped(objects.empty(stack, bucket))
    return 0


def bucket_delete(stack: Stack, given: argparse.Namespace) -> int:
    """Delete the bucket, after asking."""
    if stack.declaration.bucket and objects.find(stack) is None:
        stack.report("done", f"there is no bucket {stack.declaration.bucket.name}")
        return 0
    bucket = _require_ours(_require_bucket(stack))
    _confirm(given, str(bucket), bucket.name)
    objects.delete(stack, bucket)
    return 0


def _require_credentials(stack: Stack) -> None:
    if stack.declaration.credentials is None:
        raise ConfigurationError(f"{stack.name} declares no credentials", next_step="declare them as [credentials]")


def credentials_create(stack: Stack, given: argparse.Namespace) -> int:
    """Create S3 keys, write them to the files, and print them once."""
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


def credentials_show(stack: Stack, given: argparse.Namespace) -> int:
    """Print the access key, and whether the files have it."""
    _require_credentials(stack)
    keys = credentials.find(stack)
    if keys is None:
        raise InputError(f"{stack.name} has no S3 keys", next_step="run `credentials create`")
    print_escaped(
        f"access key {keys.access}; the files {'have' if credentials.are_files_current(stack, keys) else 'lack'} it"
    )
    return 0


def credentials_revoke(stack: Stack, given: argparse.Namespace) -> int:
    """Delete the S3 keys at the cloud and from the files, after asking."""
    keys = credentials.find(stack)
    if keys is not None:
        _confirm(given, f"the S3 keys {keys.access}", stack.name)
        credentials.revoke(stack, keys)
        stack.report("note", "the store may accept keys that were used just now for a few minutes more")
    changed = credentials.remove_from_files(stack)  # last, so that the files never lose keys that still work
    for path in changed:
        stack.report("write", f"{path} without the S3 keys")
    if keys is None and not changed:
        stack.report("done", "there are no S3 keys to revoke")
    return 0


def run_down(stack: Stack, given: argparse.Namespace) -> int:
    """Delete what this stack created, after asking."""
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
