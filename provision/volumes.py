"""Block volumes, which outlive the server."""

from __future__ import annotations

from typing import Any

from openstack import exceptions as sdk

from larder.errors import InputError, ServiceError
from provision import answers, marks
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import WaitTimeoutError, create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.declaration import BootVolumeSpec, VolumeSpec
from provision.host_scripts import Disk
from provision.marks import Resource
from provision.stack import Stack

BOOT = "boot"
"""The name of the boot volume that outlives the server."""
ATTACHING = ("reserved", "attaching")
"""What a volume is while Nova attaches it."""


def _api(stack: Stack) -> Any:
    return stack.api("block-storage")


def as_resource(stack: Stack, volume: Any) -> Resource:
    """Return the site's volume as a resource."""
    owner = (volume.metadata or {}).get(marks.STACK, "")
    location = ", ".join(f"at server {item['server_id']}" for item in volume.attachments or ())
    return Resource(
        "volume",
        volume.name or "",
        volume.id,
        volume.status,
        f"{volume.size} GiB {location}".strip(),
        owner == stack.owner,
        volume,
        owner,
    )


def all_volumes(stack: Stack) -> list[Resource]:
    """Return the project's volumes."""
    with stack.translate_errors("list volumes"):
        return [as_resource(stack, item) for item in _api(stack).volumes()]


def list_ours(stack: Stack) -> list[Resource]:
    """Return all volumes that carry our mark, declared or not."""
    return [item for item in all_volumes(stack) if item.ours]


def find(stack: Stack, name: str) -> Resource | None:
    """Return the declared volume of that name, or None."""
    return marks.select_declared(all_volumes(stack), name, cloud_name(stack, name), stack.adopt)


def require_volume(stack: Stack, name: str) -> Resource:
    """Return a declared volume. Raises InputError if it doesn't exist or isn't ours."""
    return marks.require_ours(find(stack, name), "volume", name)


def cloud_name(stack: Stack, name: str) -> str:
    """Return a volume's name in the cloud: the declared one, or for a boot volume one derived from the stack's."""
    return f"{stack.name}-boot" if name == BOOT else name


def require_type(stack: Stack, name: str) -> None:
    """Raise InputError unless the site has a volume type."""
    with stack.translate_errors("list the types of volumes"):
        types = list(_api(stack).types())
    names = sorted(str(item.name) for item in types)
    if not any(name in (item.name, item.id) for item in types):
        raise InputError(
            f"there is no volume type {name!r}; there are: {', '.join(names[:20]) or 'none'}",
            next_step="correct type in [[volume]] or [server.boot_volume], or leave it out",
        )


def create(stack: Stack, spec: VolumeSpec) -> Resource:
    """Create a blank volume, and wait until it can be attached."""
    metadata = {**stack.metadata, marks.PART: spec.name, marks.BLANK: "yes"}
    return _create(stack, spec.name, size=spec.gib, volume_type=spec.type, metadata=metadata)


def create_boot(stack: Stack, spec: BootVolumeSpec, image_id: str) -> Resource:
    """Create a volume from an image, for a server to boot from."""
    metadata = {**stack.metadata, marks.PART: BOOT}
    return _create(stack, BOOT, size=spec.gib, volume_type=spec.type, image_id=image_id, metadata=metadata)


def _create(stack: Stack, name: str, **body: Any) -> Resource:
    created = create_once(
        stack.clouds.compute,
        f"create the volume {name}",
        lambda: as_resource(stack, _api(stack).create_volume(name=cloud_name(stack, name), **body)),
        lambda: find(stack, name),
        stack.note("volume", cloud_name(stack, name)),
    )
    withdraw_if_later(
        stack,
        created,
        lambda: [item for item in list_ours(stack) if marks.declared_name(item) == name],
        lambda: delete(stack, wait_for_status(stack, created, "available")),
    )
    return wait_for_status(stack, created, "available")


def read(stack: Stack, volume: Resource) -> Resource:
    """Query a volume again."""
    with stack.translate_errors("read the volume"):
        return as_resource(stack, _api(stack).get_volume(volume.id))


def wait_for_status(stack: Stack, volume: Resource, status: str) -> Resource:
    """Wait until a volume has a status. Raises ServiceError if it fails or takes too long."""

    def check() -> Resource | None:
        now = read(stack, volume)
        if "error" in now.status:
            raise ServiceError(
                f"{now} is in {now.status}{f' after {last}' if (last := _message(stack, now)) else ''}",
                next_step="its data may be intact: ask the site to reset its state",
            )
        return now if now.status == status else None

    hint = (
        "a volume that stays in this state is reset by the site's operators (`openstack volume set --state`); then "
        + RUN_AGAIN
    )
    try:
        return poll_until(stack.reporter, f"{volume} is {status}", check, stack.declaration.limits.volume, hint)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(f"{error.what}: it is {read(stack, volume).status}", next_step=error.next_step) from None


def _message(stack: Stack, volume: Resource) -> str:
    """Return Cinder's message about a volume's failure, or ""."""
    try:
        answer = _api(stack).get("/messages", params={"resource_uuid": volume.id}, microversion="3.5")
    except sdk.SDKException:
        return ""
    messages = answer.json().get("messages", []) if answer.status_code == 200 else []
    return str(messages[0].get("user_message", "")) if messages else ""


def adopt(stack: Stack, volume: Resource, name: str) -> None:
    """Mark a volume as ours, but never as blank, since it may hold data."""
    with stack.translate_errors("mark the volume"):
        _api(stack).set_volume_metadata(volume.raw, **stack.metadata, **{marks.PART: name, marks.BLANK: "no"})


def mark_formatted(stack: Stack, volume_id: str) -> None:
    """Mark a volume as formatted in the cloud, so that it is never formatted again."""
    with stack.translate_errors("mark the volume as formatted"):
        _api(stack).set_volume_metadata(volume_id, **{marks.BLANK: "no"})


def is_grown(volume: Resource) -> bool:
    """Return whether the volume has grown, but its file system hasn't yet."""
    return bool((volume.raw.metadata or {}).get(marks.GROWN) == "yes")


def mark_grown(stack: Stack, volume_id: str, yes: bool) -> None:
    """Record whether a volume has grown and its file system has not."""
    with stack.translate_errors("mark the volume as grown"):
        _api(stack).set_volume_metadata(volume_id, **{marks.GROWN: "yes" if yes else "no"})


def disk(volume: Resource, spec: VolumeSpec) -> Disk:
    """Return the volume as a disk for the server's scripts."""
    blank = (volume.raw.metadata or {}).get(marks.BLANK) == "yes"
    return Disk(
        volume.id, answers.validate_whole_number(volume.raw.size, f"the size of {volume}"), spec.mount or "", blank
    )


def server_of(volume: Resource) -> str | None:
    """Return the id of the server that a volume is attached to, or None."""
    attachments = volume.raw.attachments or ()
    return answers.validate_identifier(attachments[0]["server_id"], f"the server of {volume}") if attachments else None


def attach(stack: Stack, volume: Resource, server: Resource) -> Resource:
    """Attach a volume to the server unless it is attached, and wait for it."""
    now = read(stack, volume)
    holder = server_of(now)
    if holder not in (None, server.id):
        raise InputError(f"{now} is attached to another server, {holder}", next_step="detach it there first")
    if holder is None and now.status not in ATTACHING:
        _attach(stack, wait_for_status(stack, now, "available"), server)
    return wait_for_status(stack, now, "in-use")


def _attach(stack: Stack, volume: Resource, server: Resource) -> None:
    compute = stack.api("compute")

    def is_attached() -> bool | None:
        now = read(stack, volume)
        return True if server_of(now) == server.id or now.status in ATTACHING else None

    create_once(
        stack.clouds.compute,
        f"attach {volume}",
        lambda: bool(compute.create_volume_attachment(server.id, volume_id=volume.id)),
        is_attached,
    )


def detach(stack: Stack, volume: Resource) -> Resource:
    """Detach a volume from its server, if any, and wait for it. Unmount it first."""
    now = read(stack, volume)
    holder = server_of(now)
    if holder is None and now.status == "available":
        return now
    if holder is not None and now.status != "detaching":
        _detach(stack, now, holder)
    return wait_for_status(stack, now, "available")


def _detach(stack: Stack, volume: Resource, holder: str) -> None:
    """Ask Nova, since Cinder refuses to detach a volume that a server uses. An interrupted run may have been faster."""

    def ask() -> bool:
        stack.api("compute").delete_volume_attachment(holder, volume.id)
        return True

    def is_detaching() -> bool | None:
        now = read(stack, volume)
        return True if now.status == "detaching" or server_of(now) is None else None

    create_once(stack.clouds.compute, f"detach {volume}", ask, is_detaching)


def grow(stack: Stack, volume: Resource, gib: int) -> Resource:
    """Grow a volume to a size, unless it already has that size."""
    now = read(stack, volume)
    if gib < now.raw.size:
        raise InputError(
            f"{now} has {now.raw.size} GiB: volumes can't shrink to {gib}",
            next_step="declare the size that it has, or more",
        )
    if gib == now.raw.size:
        return now
    if now.status == "extending":  # by an interrupted run
        return grow(stack, _wait_while_extending(stack, now), gib)
    status = now.status
    mark_grown(stack, now.id, True)
    create_once(
        stack.clouds.compute,
        f"grow {now}",
        lambda: _extend(stack, now, gib),
        lambda: True if read(stack, now).raw.size == gib else None,
    )

    def grown() -> Resource | None:
        latest = read(stack, now)
        if "error" in latest.status:
            raise ServiceError(
                f"{latest} is in {latest.status}", next_step="ask the site's operators to reset its state"
            )
        return latest if latest.raw.size == gib and latest.status == status else None

    return poll_until(stack.reporter, f"{now} has {gib} GiB", grown, stack.declaration.limits.volume, RUN_AGAIN)


def _wait_while_extending(stack: Stack, volume: Resource) -> Resource:
    def check() -> Resource | None:
        now = read(stack, volume)
        return None if now.status == "extending" else now

    limit = stack.declaration.limits.volume
    return poll_until(stack.reporter, f"{volume} is extended", check, limit, RUN_AGAIN)


def _extend(stack: Stack, volume: Resource, gib: int) -> bool:
    # 3.42 is the first version that can extend a volume in use.
    body = {"os-extend": {"new_size": gib}}
    answer = _api(stack).post(f"/volumes/{volume.id}/action", json=body, microversion="3.42")
    sdk.raise_from_response(answer)
    return True


def delete(stack: Stack, volume: Resource) -> None:
    """Delete a volume with its data, and wait until it is gone."""
    if volume.status != "deleting":  # by an interrupted run; it may be gone at any moment
        now = read(stack, volume)
        if server_of(now):
            raise InputError(f"{now} is attached to a server", next_step="`volume detach` first")
        with stack.translate_errors(f"delete {now}"):
            _api(stack).delete_volume(now.id)

    def gone() -> bool | None:
        existing = next((item for item in all_volumes(stack) if item.id == volume.id), None)
        if existing and "error" in existing.status:
            raise ServiceError(
                f"{existing} is in {existing.status}", next_step="ask the site's operators to reset its state"
            )
        return None if existing else True

    poll_until(stack.reporter, f"{volume} is gone", gone, stack.declaration.limits.volume, RUN_AGAIN)
