"""The virtual machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk

from larder.errors import InputError, LarderError, ServiceError
from larder.terminal import lines
from provision import host_keys, marks, volumes
from provision.clouds import AGAIN, make, wait
from provision.declaration import Server
from provision.leases import Lease
from provision.marks import Thing
from provision.stack import Stack

SHUT_DOWN_SECONDS = 60
"""A system that takes longer to end is deleted as it is."""

GONE = ("DELETED", "SOFT_DELETED")
CONSOLE_LINES = 20
MOST_CONSOLE_LINES = 4000


def thing(stack: Stack, server: Any) -> Thing:
    metadata = server.metadata or {}
    owner, adopted = metadata.get(marks.STACK, ""), metadata.get(marks.ADOPTED) == "yes"
    words = [f"({server.task_state})" if server.task_state else "", "adopted" if adopted else ""]
    return Thing(
        "server", server.name, server.id, server.status, " ".join(filter(None, words)), owner == stack.owner, server,
        owner, adopted,
    )  # fmt: skip


def in_project(stack: Stack) -> list[Thing]:
    """All servers of the project, whoever made them."""
    with stack.step("list servers"):
        servers = [thing(stack, item) for item in stack.clouds.compute.connection.compute.servers()]
    return [item for item in servers if item.status not in GONE]


def candidates(stack: Stack) -> list[Thing]:
    """The servers that carry our mark or have our name."""
    return [item for item in in_project(stack) if item.ours or item.name == stack.name]


def flavor_name(server: Thing) -> str:
    """The flavor that a server was made with; on a lease it is named after the reservation."""
    return str(server.raw.flavor.original_name or server.raw.flavor.name)


def refuse_to_end(stack: Stack, lease: Lease, going: Collection[str] = ()) -> None:
    """InputError where the end of a lease would delete a server that isn't `going`: one that somebody started on it."""
    for server in in_project(stack):
        if server.id not in going and flavor_name(server) == lease.flavor:
            raise InputError(f"{server} isn't this stack's, and would end with the lease",
                             next_step="have its owner delete it")  # fmt: skip


def ours(stack: Stack) -> list[Thing]:
    """All servers that carry our mark."""
    return [item for item in candidates(stack) if item.ours]


def find(stack: Stack) -> Thing | None:
    return marks.one(candidates(stack), stack.adopt)


def adopt(stack: Stack, server: Thing) -> None:
    with stack.step("mark the server"):
        stack.clouds.compute.connection.compute.set_server_metadata(
            server.raw, **stack.metadata, **{marks.ADOPTED: "yes"}
        )


def release(stack: Stack, server: Thing) -> None:
    """Take our mark from a server that was adopted; it goes on running."""
    with stack.step("take the mark from the server"):
        # The mark first: with it alone, the server would count as made by us.
        for key in (marks.STACK, marks.ADOPTED, marks.IMAGE):
            if key in server.raw.metadata:
                stack.clouds.compute.connection.compute.delete_server_metadata(server.raw, [key])


def root_goes(server: Thing) -> bool:
    """Whether the server's root disk goes with it."""
    from_image = bool(server.raw.image and server.raw.image.id)
    return from_image or any(volume.get("delete_on_termination") for volume in _volumes_of(server))


def _volumes_of(server: Thing) -> list[Any]:
    return list(server.raw.attached_volumes or ())


def what_replacing_does(server: Thing) -> str:
    """The advice for a server that can only be replaced."""
    root = ", with its root disk," if root_goes(server) else ""
    return f"`up --replace` deletes it{root} and makes another; declared volumes stay"


def refuse_unlike(server: Thing, differences: list[str]) -> None:
    """InputError for a server that somebody else made, and that isn't as declared: it isn't ours to replace."""
    if not server.ours or server.adopted:
        raise InputError(
            f"{server} was made by somebody else, and isn't as declared: {'; '.join(differences)}",
            next_step="declare what it is; or give the stack another name; or have its owner delete it",
        )


def start(stack: Stack, server: Thing) -> None:
    """Start a server that was stopped, by hand or by a `down` that was interrupted."""
    if server.status == "SHUTOFF":
        stack.say("start", str(server))
        with stack.step("start the server"):
            stack.clouds.compute.connection.compute.start_server(server.id)


def missing(what: str, name: str, existing: list[str], next_step: str) -> InputError:
    """The error for something that the site doesn't have."""
    listed = ", ".join(sorted(existing)[:20]) or "none"
    return InputError(f"there is no {what} {name!r}; there are: {listed}", next_step=next_step)


def _pick(what: str, name: str, things: list[Any], next_step: str) -> Any:
    found = [item for item in things if name in (item.name, item.id)]
    if not found:
        raise missing(what, name, [item.name for item in things if item.name], next_step)
    if len(found) > 1:
        raise InputError(
            lines(
                f"{len(found)} of kind {what} are called {name!r}:", *(f"  - {item.name} ({item.id})" for item in found)
            ),
            next_step="declare the id in place of the name",
        )
    return found[0]


def image(stack: Stack, name: str) -> Any:
    with stack.step("look for the image"):
        return _pick("image", name, list(stack.clouds.compute.connection.image.images()),
                     "correct [server] image; names change when a site renews its images")  # fmt: skip


def flavor(stack: Stack, name: str) -> Any:
    with stack.step("look for the flavor"):
        return _pick("flavor", name, list(stack.clouds.compute.connection.compute.flavors()), "correct [server] flavor")


def key_pair(stack: Stack, name: str) -> Any:
    with stack.step("look for the key pair"):
        return _pick("key pair", name, list(stack.clouds.compute.connection.compute.keypairs()),
                     "correct [server] key, or upload the key: `openstack keypair create`")  # fmt: skip


def network(stack: Stack, name: str) -> Any:
    with stack.step("look for the network"):
        return _pick(
            "network", name, list(stack.clouds.compute.connection.network.networks()), "correct the network's name"
        )


def create(
    stack: Stack, wanted: Server, groups: Sequence[str], lease: Lease | None, boot_volume: str | None
) -> Thing:  # fmt: skip
    """Start a server in the security groups with these ids; returns it as it is then, still building."""
    compute = stack.clouds.compute.connection.compute
    what = image(stack, wanted.image)
    size = flavor(stack, lease.flavor if lease else wanted.flavor)
    body: dict[str, Any] = {
        "name": stack.name, "flavor_id": size.id, "key_name": key_pair(stack, wanted.key).name,
        "networks": [{"uuid": network(stack, wanted.network).id}],
        "metadata": stack.metadata | {marks.IMAGE: wanted.image},
        "security_groups": [{"name": id} for id in groups],  # ids, since names may be there twice
    }  # fmt: skip
    if lease:
        body["scheduler_hints"] = {"reservation": lease.reservation}
    if boot_volume:
        body["block_device_mapping"] = [_boot_from("volume", boot_volume, delete=False)]
    elif wanted.boot_volume:
        source = _boot_from("image", what.id, delete=True)
        body["block_device_mapping"] = [source | {"volume_size": wanted.boot_volume.gib}]
    else:
        body["image_id"] = what.id
    made = make(
        stack.clouds.compute,
        "start the server",
        lambda: thing(stack, compute.create_server(**body)),
        lambda: find(stack),
    )
    return _read(stack, made.id)


def _boot_from(source: str, id: str, delete: bool) -> dict[str, Any]:
    return {
        "boot_index": 0,
        "uuid": id,
        "source_type": source,
        "destination_type": "volume",
        "delete_on_termination": delete,
    }


def _read(stack: Stack, id: str) -> Thing:
    with stack.step("read the server"):
        return thing(stack, stack.clouds.compute.connection.compute.get_server(id))


def wait_active(stack: Stack, server: Thing) -> Thing:
    """Wait until the server runs; ServiceError with its fault and the end of its console when it can't."""

    def look() -> Thing | None:
        now = _read(stack, server.id)
        if now.status == "ERROR":
            raise failed(stack, now)
        return now if now.status == "ACTIVE" and not now.raw.task_state else None

    limit = stack.declaration.limits.server
    return wait(
        stack.reporter,
        f"the server {stack.name} runs",
        look,
        limit,
        f"look at `status` and the site's web interface; {AGAIN}",
    )


def failed(stack: Stack, server: Thing) -> ServiceError:
    """What is known of a server in ERROR."""
    fault = _read(stack, server.id).raw.fault or {}  # lists of servers lack it
    what = [f"the server {server.name} ({server.id}) is in ERROR: {fault.get('message', 'no fault is given')}"]
    if end := console(stack, server):
        what += ["  the end of its console:", *(f"  | {line}" for line in end)]
    return ServiceError(lines(*what), next_step=what_replacing_does(server))


def console(stack: Stack, server: Thing) -> list[str]:
    """The last lines of a server's console; none where there is no console."""
    return console_log(stack, server, CONSOLE_LINES).strip().splitlines()[-CONSOLE_LINES:]


def console_log(stack: Stack, server: Thing, lines: int = MOST_CONSOLE_LINES) -> str:
    """The end of a server's console log; empty where there is none, as at a server without a host."""
    try:
        answer = stack.clouds.compute.connection.compute.get_server_console_output(server.raw, length=lines)
    except (sdk.HttpException, ksa.ClientException):
        return ""
    text = answer.get("output") if isinstance(answer, dict) else answer
    return text[-host_keys.MOST_CHARACTERS :] if isinstance(text, str) else ""


def delete(stack: Stack, server: Thing) -> None:
    """Delete a server and wait until it is gone, so that its volumes are free."""
    compute = stack.clouds.compute.connection.compute
    _shut_down(stack, server)
    with stack.step("delete the server"):
        compute.delete_server(server.id)

    def gone() -> bool | None:
        return None if any(item.id == server.id for item in candidates(stack)) else True

    wait(stack.reporter, f"the server {server.name} is gone", gone, stack.declaration.limits.server, AGAIN)


def _shut_down(stack: Stack, server: Thing) -> None:
    """Have a running server end by itself, as far as it does: it writes to its volumes what it still has in memory."""
    if server.status != "ACTIVE":
        return
    compute = stack.clouds.compute.connection.compute

    def ended() -> bool | None:
        with stack.step("look at the server"):
            found = compute.find_server(server.id)
        return None if found is not None and found.status == "ACTIVE" else True

    try:
        with stack.step("shut the server down"):
            compute.stop_server(server.id)
        wait(stack.reporter, f"the server {server.name} has shut down", ended, SHUT_DOWN_SECONDS, AGAIN)
    except LarderError as error:
        stack.say("warning", f"not shut down before it goes: {error.what}")


def differences(stack: Stack, server: Thing, lease: Lease | None) -> list[str]:
    """What of the server isn't as declared and can't be changed while it lives."""
    wanted, raw = stack.declaration.server, server.raw
    assert wanted
    found = []
    if server.status == "ERROR":
        found.append("it is in ERROR")
    if stack.declaration.lease and lease is None:
        found.append("it runs outside of the lease to come")
    wanted_flavor = lease.flavor if lease else flavor(stack, wanted.flavor).name
    if (name := flavor_name(server)) != wanted_flavor:
        found.append(f"its flavor is {name}, not {wanted_flavor}")
    if raw.key_name != wanted.key:
        found.append(f"its key is {raw.key_name}, not {wanted.key}")
    if raw.addresses and network(stack, wanted.network).name not in raw.addresses:
        found.append(f"its network is {', '.join(raw.addresses)}, not {wanted.network}")
    return found + _root_differences(stack, server)


def _root_differences(stack: Stack, server: Thing) -> list[str]:
    """The same of what the server starts from."""
    wanted, raw = stack.declaration.server, server.raw
    assert wanted
    image_id = raw.image.id if raw.image and raw.image.id else None
    if wanted.boot_volume and image_id:
        return ["it starts from its image"]
    if wanted.boot_volume:
        boot = None if wanted.boot_volume.delete_on_termination else volumes.find(stack, volumes.BOOT)
        staying = [item["id"] for item in _volumes_of(server) if item.get("delete_on_termination") is False]
        stays = wanted.boot_volume.delete_on_termination or (boot is not None and boot.id in staying)
        return [] if stays else ["it doesn't start from the volume that stays"]
    if not image_id:
        return ["it starts from a volume"]
    made_from = (raw.metadata or {}).get(marks.IMAGE)  # sites renew images, and keep their names
    like = made_from == wanted.image if made_from else image_id == image(stack, wanted.image).id
    return [] if like else [f"its image is {made_from or image_id}, not {wanted.image}"]
