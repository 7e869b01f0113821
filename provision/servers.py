"""The server: a virtual machine, or a bare-metal node."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk

from larder.errors import InputError, LarderError, ServiceError
from larder.terminal import join_lines
from provision import host_keys, marks, volumes
from provision.changes import Change
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.declaration import ServerSpec
from provision.leases import Lease
from provision.marks import Resource
from provision.stack import Stack

SHUT_DOWN_SECONDS = 60
"""A system that takes longer to shut down is deleted anyway."""

GONE = ("DELETED", "SOFT_DELETED")
CONSOLE_LINES = 20
MAX_CONSOLE_LINES = 4000


def as_resource(stack: Stack, server: Any) -> Resource:
    """Return the site's server as a resource."""
    metadata = server.metadata or {}
    owner, adopted = metadata.get(marks.STACK, ""), metadata.get(marks.ADOPTED) == "yes"
    words = [f"({server.task_state})" if server.task_state else "", "adopted" if adopted else ""]
    return Resource(
        "server",
        server.name,
        server.id,
        server.status,
        " ".join(filter(None, words)),
        owner == stack.owner,
        server,
        owner,
        adopted,
    )


def in_project(stack: Stack) -> list[Resource]:
    """Return all servers of the project, including those of others."""
    with stack.translate_errors("list servers"):
        servers = [as_resource(stack, item) for item in stack.api("compute").servers()]
    return [item for item in servers if item.status not in GONE]


def candidates(stack: Stack) -> list[Resource]:
    """Return the servers that carry our mark or have our name."""
    return [item for item in in_project(stack) if item.ours or item.name == stack.name]


def flavor_name(server: Resource) -> str:
    """Return the name of a server's flavor; on a lease it contains the reservation's id."""
    return str(server.raw.flavor.original_name or server.raw.flavor.name)


def runs_on(server: Resource, lease: Lease) -> bool:
    """Return whether a server runs on a lease, so that it ends with it.

    A flavor of Blazar has the reservation's id in its name. A node of a physical reservation is in an availability zone
    with that id in its name; where a site names its zones otherwise, our own servers are known by their metadata.
    """
    if not lease.reservation:
        return False
    reserved = (server.raw.metadata or {}).get(marks.RESERVATION)
    zone = str(server.raw.availability_zone or "")
    return flavor_name(server) == lease.flavor or reserved == lease.reservation or lease.reservation in zone


def require_lease_unused(stack: Stack, lease: Lease, removed_ids: Collection[str] = ()) -> None:
    """Raise InputError if ending a lease would delete a server that isn't in `removed_ids`, such as another user's."""
    for server in in_project(stack) if stack.clouds.compute.offers("compute") else ():
        if server.id not in removed_ids and runs_on(server, lease):
            raise InputError(
                f"{server} isn't this stack's, and would end with the lease", next_step="have its owner delete it"
            )


def list_ours(stack: Stack) -> list[Resource]:
    """Return all servers that carry our mark."""
    return [item for item in candidates(stack) if item.ours]


def find(stack: Stack) -> Resource | None:
    """Return our server, if there is one."""
    return marks.select_one(candidates(stack), stack.adopt)


def adopt(stack: Stack, server: Resource) -> None:
    """Mark a server that somebody else created as ours."""
    with stack.translate_errors("mark the server"):
        stack.api("compute").set_server_metadata(server.raw, **stack.metadata, **{marks.ADOPTED: "yes"})


def release(stack: Stack, server: Resource) -> None:
    """Remove our mark from an adopted server, which keeps running."""
    with stack.translate_errors("take the mark from the server"):
        # The mark first: without the others, it would mean that we created the server.
        for key in (marks.STACK, marks.ADOPTED, marks.IMAGE):
            if key in server.raw.metadata:
                stack.api("compute").delete_server_metadata(server.raw, [key])


def deletes_root_disk(server: Resource) -> bool:
    """Return whether the root disk is deleted with the server."""
    from_image = bool(server.raw.image and server.raw.image.id)
    return from_image or any(volume.get("delete_on_termination") for volume in _volumes_of(server))


def _volumes_of(server: Resource) -> list[Any]:
    return list(server.raw.attached_volumes or ())


def replacement_hint(server: Resource) -> str:
    """Return the next step for a server that must be replaced."""
    root = ", with its root disk," if deletes_root_disk(server) else ""
    return f"`up --replace` deletes it{root} and creates another; declared volumes stay"


def require_replaceable(server: Resource, differences: Sequence[Change]) -> None:
    """Raise InputError for a server of someone else that isn't as declared, since we must not replace it."""
    if not server.ours or server.adopted:
        raise InputError(
            f"{server} was created by someone else, and isn't as declared: {'; '.join(map(str, differences))}",
            next_step="declare it as it is, give the stack another name, or have its owner delete it",
        )


def start(stack: Stack, server: Resource) -> None:
    """Start a server that was stopped, by hand or by an interrupted `down`."""
    if server.status == "SHUTOFF":
        stack.report("start", str(server))
        with stack.translate_errors("start the server"):
            stack.api("compute").start_server(server.id)


def not_found_error(what: str, name: str, existing: list[str], next_step: str) -> InputError:
    """Return the error for something that the site lacks."""
    listed = ", ".join(sorted(existing)[:20]) or "none"
    return InputError(f"there is no {what} {name!r}; there are: {listed}", next_step=next_step)


def _pick(what: str, name: str, existing: list[Any], next_step: str) -> Any:
    matching = [item for item in existing if name in (item.name, item.id)]
    if not matching:
        raise not_found_error(what, name, [item.name for item in existing if item.name], next_step)
    if len(matching) > 1:
        raise InputError(
            join_lines(
                f"there are {len(matching)} of type {what} with the name {name!r}:",
                *(f"  - {item.name} ({item.id})" for item in matching),
            ),
            next_step="declare the id in place of the name",
        )
    return matching[0]


def find_image(stack: Stack, name: str) -> Any:
    """Return the image of a name."""
    with stack.translate_errors("look for the image"):
        return _pick(
            "image",
            name,
            list(stack.api("image").images()),
            "correct [server] image; names change when a site renews its images",
        )


def require_image_fits(stack: Stack, spec: ServerSpec) -> Any:
    """Return the image. Raises InputError if it isn't usable, or the declared flavor is too small for it."""
    image, flavor = find_image(stack, spec.image), find_flavor(stack, spec.flavor)
    if image.status and image.status != "active":
        raise InputError(f"the image {spec.image} is {image.status}", next_step="declare another as [server] image")
    disk_gib = spec.boot_volume.gib if spec.boot_volume else flavor.disk
    short = [f"{flavor.ram} MB of memory, {image.min_ram} needed"] if flavor.ram < (image.min_ram or 0) else []
    if disk_gib and disk_gib < (image.min_disk or 0):  # a flavor's 0 means the image's size
        short.append(f"a root disk of {disk_gib} GB, {image.min_disk} needed")
    if short:
        raise InputError(
            f"the server would be too small for the image {spec.image}: {'; '.join(short)}",
            next_step="declare a larger flavor, or a larger [server.boot_volume]",
        )
    return image


def find_flavor(stack: Stack, name: str) -> Any:
    """Return the flavor of a name."""
    with stack.translate_errors("look for the flavor"):
        return _pick("flavor", name, list(stack.api("compute").flavors()), "correct [server] flavor")


def find_key_pair(stack: Stack, name: str) -> Any:
    """Return the key pair of a name."""
    with stack.translate_errors("look for the key pair"):
        return _pick(
            "key pair",
            name,
            list(stack.api("compute").keypairs()),
            "correct [server] key, or upload the key: `openstack keypair create`",
        )


def find_network(stack: Stack, name: str) -> Any:
    """Return the network of a name."""
    with stack.translate_errors("look for the network"):
        return _pick("network", name, list(stack.api("network").networks()), "correct the network's name")


def create(
    stack: Stack, spec: ServerSpec, groups: Sequence[str], lease: Lease | None, boot_volume: str | None
) -> Resource:
    """Create a server in the security groups with these ids, and return it while it is still building."""
    compute = stack.api("compute")
    what = find_image(stack, spec.image)
    size = find_flavor(stack, lease.flavor if lease and not lease.is_physical else spec.flavor)
    body: dict[str, Any] = {
        "name": stack.name,
        "flavor_id": size.id,
        "key_name": find_key_pair(stack, spec.key).name,
        "networks": [{"uuid": find_network(stack, spec.network).id}],
        "metadata": stack.metadata | {marks.IMAGE: spec.image},
        "security_groups": [{"name": id} for id in groups],  # ids, since names may be ambiguous
    }
    if lease and lease.is_physical:  # with this hint, Nova accepts only hosts of a physical reservation
        body["scheduler_hints"] = {"reservation": lease.reservation}
        body["metadata"] |= {marks.RESERVATION: lease.reservation}
    if boot_volume:
        body["block_device_mapping"] = [_boot_from("volume", boot_volume, delete=False)]
    elif spec.boot_volume:
        source = _boot_from("image", what.id, delete=True)
        source |= {"volume_size": spec.boot_volume.gib}
        if spec.boot_volume.type:
            source["volume_type"] = spec.boot_volume.type
        body["block_device_mapping"] = [source]
    else:
        body["image_id"] = what.id
    created = create_once(
        stack.clouds.compute,
        "start the server",
        lambda: as_resource(stack, compute.create_server(**body)),
        lambda: find(stack),
        stack.note("server"),
    )
    withdraw_if_later_server(stack, created)
    return _read(stack, created.id)


def withdraw_if_later_server(stack: Stack, created: Resource) -> None:
    """Delete the server that this run has created if another run has created one earlier, and raise InputError."""
    withdraw_if_later(stack, created, lambda: list_ours(stack), lambda: delete(stack, created))


def _boot_from(source: str, id: str, delete: bool) -> dict[str, Any]:
    return {
        "boot_index": 0,
        "uuid": id,
        "source_type": source,
        "destination_type": "volume",
        "delete_on_termination": delete,
    }


def _read(stack: Stack, id: str) -> Resource:
    with stack.translate_errors("read the server"):
        return as_resource(stack, stack.api("compute").get_server(id))


def wait_built(stack: Stack, server: Resource) -> Resource:
    """Wait while a server that an interrupted run left is being built, whatever becomes of it."""

    def check() -> Resource | None:
        now = _read(stack, server.id)
        return None if now.status == "BUILD" else now

    limit = stack.declaration.limits.server
    return poll_until(stack.reporter, f"the server {stack.name} is built", check, limit, RUN_AGAIN)


def wait_active(stack: Stack, server: Resource) -> Resource:
    """Wait until the server runs. Raises ServiceError with its fault and the end of its console if it can't."""

    def check() -> Resource | None:
        now = _read(stack, server.id)
        if now.status == "ERROR":
            raise server_error(stack, now)
        return now if now.status == "ACTIVE" and not now.raw.task_state else None

    limit = stack.declaration.limits.server
    return poll_until(
        stack.reporter,
        f"the server {stack.name} runs",
        check,
        limit,
        f"look at `status` and the site's web interface; {RUN_AGAIN}",
    )


def server_error(stack: Stack, server: Resource) -> ServiceError:
    """Return the error for a server in ERROR, with its fault and the end of its console."""
    fault = _read(stack, server.id).raw.fault or {}  # missing in lists of servers
    what = [f"the server {server.name} ({server.id}) is in ERROR: {fault.get('message', 'no fault is given')}"]
    if end := console(stack, server):
        what += ["  the end of its console:", *(f"  | {line}" for line in end)]
    return ServiceError(join_lines(*what), next_step=replacement_hint(server))


def console(stack: Stack, server: Resource) -> list[str]:
    """Return the last lines of a server's console, or none without a console."""
    return console_log(stack, server, CONSOLE_LINES).strip().splitlines()[-CONSOLE_LINES:]


def console_log(stack: Stack, server: Resource, lines: int = MAX_CONSOLE_LINES) -> str:
    """Return the end of a server's console log, or "" if there is none, as for a server without a host."""
    try:
        answer = stack.api("compute").get_server_console_output(server.raw, length=lines)
    except (sdk.HttpException, ksa.ClientException):
        return ""
    text = answer.get("output") if isinstance(answer, dict) else answer
    return text[-host_keys.MAX_CONSOLE_CHARACTERS :] if isinstance(text, str) else ""


def delete(stack: Stack, server: Resource) -> None:
    """Delete a server and wait until it is gone, so that its volumes are free."""
    compute = stack.api("compute")
    _shut_down(stack, server)
    with stack.translate_errors("delete the server"):
        compute.delete_server(server.id)

    def gone() -> bool | None:
        return None if any(item.id == server.id for item in candidates(stack)) else True

    poll_until(stack.reporter, f"the server {server.name} is gone", gone, stack.declaration.limits.server, RUN_AGAIN)


def _shut_down(stack: Stack, server: Resource) -> None:
    """Shut down a running server, if possible, so that it writes its cached data to its volumes."""
    if server.status != "ACTIVE":
        return
    compute = stack.api("compute")

    def ended() -> bool | None:
        with stack.translate_errors("look at the server"):
            running = compute.find_server(server.id)
        return None if running is not None and running.status == "ACTIVE" else True

    try:
        with stack.translate_errors("shut the server down"):
            compute.stop_server(server.id)
        poll_until(stack.reporter, f"the server {server.name} has shut down", ended, SHUT_DOWN_SECONDS, RUN_AGAIN)
    except LarderError as error:
        stack.report("warning", f"not shut down before it is deleted: {error.what}")


def differences(stack: Stack, server: Resource, lease: Lease | None) -> list[Change]:
    """Return the differences from the declaration that only a new server can fix."""
    declared, raw = stack.declaration.server, server.raw
    assert declared
    differences_found = []
    if server.status == "ERROR":
        differences_found.append(Change("status", "ERROR", "ACTIVE", "it is in ERROR"))
    if stack.declaration.lease and lease is None:
        differences_found.append(Change("lease", "", "declared", "it runs outside of the declared lease"))
    elif lease and lease.is_physical and not runs_on(server, lease):
        differences_found.append(Change("lease", "", lease.id, f"it doesn't run on the lease {lease.id}"))
    reserved_flavor = lease.flavor if lease and not lease.is_physical else None
    declared_flavor = reserved_flavor or find_flavor(stack, declared.flavor).name
    if (name := flavor_name(server)) != declared_flavor:
        differences_found.append(Change("flavor", name, declared_flavor))
    if raw.key_name != declared.key:
        differences_found.append(Change("key", str(raw.key_name or ""), declared.key))
    if raw.addresses and find_network(stack, declared.network).name not in raw.addresses:
        differences_found.append(Change("network", ", ".join(raw.addresses), declared.network))
    return differences_found + _root_differences(stack, server)


def _root_differences(stack: Stack, server: Resource) -> list[Change]:
    """Return the same for what the server boots from."""
    declared, raw = stack.declaration.server, server.raw
    assert declared
    if server.status == "BUILD":  # Nova doesn't list its volumes yet
        return []
    image_id = raw.image.id if raw.image and raw.image.id else None
    if declared.boot_volume and image_id:
        return [Change("boot_volume", "", f"{declared.boot_volume.gib} GiB", "it starts from its image")]
    if declared.boot_volume:
        boot = None if declared.boot_volume.delete_on_termination else volumes.find(stack, volumes.BOOT)
        kept_ids = [item["id"] for item in _volumes_of(server) if item.get("delete_on_termination") is False]
        is_kept = declared.boot_volume.delete_on_termination or (boot is not None and boot.id in kept_ids)
        text = "it doesn't start from the volume that stays"
        return [] if is_kept else [Change("boot_volume", "", volumes.cloud_name(stack, volumes.BOOT), text)]
    if not image_id:
        return [Change("boot_volume", "a volume", "", "it starts from a volume")]
    made_from = (raw.metadata or {}).get(marks.IMAGE)  # sites renew images under the same name
    is_same = made_from == declared.image if made_from else image_id == find_image(stack, declared.image).id
    return [] if is_same else [Change("image", str(made_from or image_id), declared.image)]
