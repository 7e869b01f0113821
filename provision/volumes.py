"""Block volumes, which outlive the server."""

from __future__ import annotations

from typing import Any

from openstack import exceptions as sdk

from larder.errors import InputError, ServiceError
from provision import answers, marks
from provision.clouds import AGAIN, TooLate, make, wait
from provision.declaration import BootVolume, Volume
from provision.hosts import Disk
from provision.marks import Thing
from provision.stack import Stack

BOOT = "boot"
"""The part's name of a volume that the server starts from and that outlives it."""


def _api(stack: Stack) -> Any:
    return stack.clouds.compute.connection.block_storage


def thing(stack: Stack, volume: Any) -> Thing:
    owner = (volume.metadata or {}).get(marks.STACK, "")
    where = ", ".join(f"at server {item['server_id']}" for item in volume.attachments or ())
    return Thing(
        "volume", volume.name or "", volume.id, volume.status, f"{volume.size} GiB {where}".strip(),
        owner == stack.owner, volume, owner,
    )  # fmt: skip


def all_volumes(stack: Stack) -> list[Thing]:
    with stack.step("list volumes"):
        return [thing(stack, item) for item in _api(stack).volumes()]


def ours(stack: Stack) -> list[Thing]:
    """All volumes that carry our mark, declared or not."""
    return [item for item in all_volumes(stack) if item.ours]


def part(volume: Thing) -> str:
    """Which declared volume this is."""
    return str((volume.raw.metadata or {}).get(marks.PART, ""))


def find(stack: Stack, name: str) -> Thing | None:
    """The declared volume of that name."""

    def meant(item: Thing) -> bool:
        return part(item) == name if item.ours else item.name == cloud_name(stack, name)

    return marks.one([item for item in all_volumes(stack) if meant(item)], stack.adopt)


def need(stack: Stack, name: str) -> Thing:
    found = find(stack, name)
    if found is None:
        raise InputError(f"the volume {name!r} doesn't exist yet", next_step=f"`volume create {name}` or `up` makes it")
    if not found.ours:
        raise InputError(f"{found} is not this stack's yet", next_step="`--adopt up` marks it; then run this again")
    return found


def cloud_name(stack: Stack, name: str) -> str:
    """A volume's name in the cloud: the declared one; a boot volume takes the server's."""
    return f"{stack.name}-boot" if name == BOOT else name


def create(stack: Stack, wanted: Volume) -> Thing:
    """Make a blank volume and wait until it can be attached."""
    metadata = {**stack.metadata, marks.PART: wanted.name, marks.BLANK: "yes"}
    return _create(stack, wanted.name, size=wanted.gib, volume_type=wanted.type, metadata=metadata)


def create_boot(stack: Stack, wanted: BootVolume, image_id: str) -> Thing:
    """Make a volume from an image, for a server to start from."""
    metadata = {**stack.metadata, marks.PART: BOOT}
    return _create(stack, BOOT, size=wanted.gib, volume_type=wanted.type, image_id=image_id, metadata=metadata)


def _create(stack: Stack, name: str, **body: Any) -> Thing:
    made = make(
        stack.clouds.compute, f"make the volume {name}",
        lambda: thing(stack, _api(stack).create_volume(name=cloud_name(stack, name), **body)),
        lambda: find(stack, name),
    )  # fmt: skip
    return wait_for(stack, made, "available")


def read(stack: Stack, volume: Thing) -> Thing:
    with stack.step("read the volume"):
        return thing(stack, _api(stack).get_volume(volume.id))


def wait_for(stack: Stack, volume: Thing, status: str) -> Thing:
    """Wait until a volume has a status. ServiceError when it ends in an error, or takes too long."""

    def look() -> Thing | None:
        now = read(stack, volume)
        if "error" in now.status:
            raise ServiceError(
                f"{now} is in {now.status}{f' after {last}' if (last := _message(stack, now)) else ''}",
                next_step="its data may be whole: ask the site to reset its state",
            )
        return now if now.status == status else None

    stuck = (
        "a volume that stays in this state is reset by the site's operators (`openstack volume set --state`); then "
        + AGAIN
    )
    try:
        return wait(stack.reporter, f"{volume} is {status}", look, stack.declaration.limits.volume, stuck)
    except TooLate as error:
        raise TooLate(f"{error.what}: it is {read(stack, volume).status}", next_step=error.next_step) from None


def _message(stack: Stack, volume: Thing) -> str:
    """What Cinder says about a volume's failure, where it does."""
    try:
        answer = _api(stack).get("/messages", params={"resource_uuid": volume.id}, microversion="3.5")
    except sdk.SDKException:
        return ""
    messages = answer.json().get("messages", []) if answer.status_code == 200 else []
    return str(messages[0].get("user_message", "")) if messages else ""


def adopt(stack: Stack, volume: Thing, name: str) -> None:
    """Mark a volume as ours; never as blank, since it may hold data."""
    with stack.step("mark the volume"):
        _api(stack).set_volume_metadata(volume.raw, **stack.metadata, **{marks.PART: name, marks.BLANK: "no"})


def mark_formatted(stack: Stack, volume_id: str) -> None:
    """Say in the cloud that a volume holds a file system, so that nothing formats it ever again."""
    with stack.step("mark the volume as formatted"):
        _api(stack).set_volume_metadata(volume_id, **{marks.BLANK: "no"})


def is_grown(volume: Thing) -> bool:
    """Whether the volume was made larger, and its file system not yet."""
    return bool((volume.raw.metadata or {}).get(marks.GROWN) == "yes")


def mark_grown(stack: Stack, volume_id: str, yes: bool) -> None:
    with stack.step("mark the volume as grown"):
        _api(stack).set_volume_metadata(volume_id, **{marks.GROWN: "yes" if yes else "no"})


def disk(volume: Thing, wanted: Volume) -> Disk:
    """The volume as the server's scripts know it."""
    blank = (volume.raw.metadata or {}).get(marks.BLANK) == "yes"
    return Disk(volume.id, answers.whole_number(volume.raw.size, f"the size of {volume}"), wanted.mount or "", blank)


def server_of(volume: Thing) -> str | None:
    """The id of the server that a volume is attached to."""
    attachments = volume.raw.attachments or ()
    return answers.identifier(attachments[0]["server_id"], f"the server of {volume}") if attachments else None


def attach(stack: Stack, volume: Thing, server: Thing) -> Thing:
    """Attach a volume to the server, unless it is, and wait for it."""
    now = read(stack, volume)
    holder = server_of(now)
    if holder not in (None, server.id):
        raise InputError(f"{now} is attached to another server, {holder}", next_step="detach it there first")
    if holder is None and now.status != "attaching":
        _attach(stack, wait_for(stack, now, "available"), server)
    return wait_for(stack, now, "in-use")


def _attach(stack: Stack, volume: Thing, server: Thing) -> None:
    compute = stack.clouds.compute.connection.compute

    def taken() -> bool | None:
        now = read(stack, volume)
        return True if server_of(now) == server.id or now.status in ("attaching", "reserved") else None

    make(stack.clouds.compute, f"attach {volume}",
         lambda: bool(compute.create_volume_attachment(server.id, volume_id=volume.id)), taken)  # fmt: skip


def detach(stack: Stack, volume: Thing) -> Thing:
    """Detach a volume from its server, if it is at one, and wait for it. Unmount it before."""
    now = read(stack, volume)
    holder = server_of(now)
    if holder is None and now.status == "available":
        return now
    if holder is not None and now.status != "detaching":
        # Through Nova alone: Cinder refuses to detach what a server has.
        with stack.step(f"detach {now}"):
            stack.clouds.compute.connection.compute.delete_volume_attachment(holder, now.id)
    return wait_for(stack, now, "available")


def grow(stack: Stack, volume: Thing, gib: int) -> Thing:
    """Make a volume larger. It stays as it is when it has that size."""
    now = read(stack, volume)
    if gib < now.raw.size:
        raise InputError(
            f"{now} has {now.raw.size} GiB: volumes can't shrink to {gib}",
            next_step="declare the size that it has, or more",
        )
    if gib == now.raw.size:
        return now
    status = now.status
    mark_grown(stack, now.id, True)
    make(stack.clouds.compute, f"grow {now}", lambda: _extend(stack, now, gib),
         lambda: True if read(stack, now).raw.size == gib else None)  # fmt: skip

    def grown() -> Thing | None:
        found = read(stack, now)
        if "error" in found.status:
            raise ServiceError(f"{found} is in {found.status}", next_step="ask the site's operators to reset its state")
        return found if found.raw.size == gib and found.status == status else None

    return wait(stack.reporter, f"{now} has {gib} GiB", grown, stack.declaration.limits.volume, AGAIN)


def _extend(stack: Stack, volume: Thing, gib: int) -> bool:
    # 3.42 is the first version that extends a volume that a server uses.
    body = {"os-extend": {"new_size": gib}}
    answer = _api(stack).post(f"/volumes/{volume.id}/action", json=body, microversion="3.42")
    sdk.raise_from_response(answer)
    return True


def delete(stack: Stack, volume: Thing) -> None:
    """Delete a volume with its data, and wait until it is gone."""
    if volume.status != "deleting":  # as an interrupted run has left it: it may be gone any moment
        now = read(stack, volume)
        if server_of(now):
            raise InputError(f"{now} is attached to a server", next_step="`volume detach` first")
        with stack.step(f"delete {now}"):
            _api(stack).delete_volume(now.id)

    def gone() -> bool | None:
        found = next((item for item in all_volumes(stack) if item.id == volume.id), None)
        if found and "error" in found.status:
            raise ServiceError(f"{found} is in {found.status}", next_step="ask the site's operators to reset its state")
        return None if found else True

    wait(stack.reporter, f"{volume} is gone", gone, stack.declaration.limits.volume, AGAIN)
