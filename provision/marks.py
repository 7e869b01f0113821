"""Marks on cloud resources that identify the stack that created them.

A mark is set in the request that creates the resource, so none of ours is ever without one. It is the metadata of
servers, volumes, shares and access rules, the description of addresses, security groups and their rules, a header of
buckets, the name of leases, and the access key of credentials. `--adopt` marks resources of others with metadata, a
header or a tag.

A mark names the stack and its user, since all users of a project see all its resources, and two may use the same
stack name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from larder.errors import InputError
from larder.terminal import Lines, join_lines
from provision import answers

STACK = "larder:stack"
PART = "larder:part"
"""The name of the declared volume or share."""
BLANK = "larder:blank"
"""yes: we created it blank, and it isn't formatted yet."""
GROWN = "larder:grown"
"""yes: the volume has grown, but its file system hasn't yet."""
IMAGE = "larder:image"
"""The declared image that a server was created from."""
RESERVATION = "larder:reservation"
"""The reservation of the bare-metal node that a server runs on."""
ADOPTED = "larder:adopted"
"""yes: someone else created it, and `--adopt` marked it."""
HEADER = "larder-stack"
"""A bucket's header, after X-Container-Meta-."""
RUN_HEADER = "larder-run"
"""Another one, which ends with a number of the run that created the bucket; its value is the same mark."""


@dataclass(frozen=True)
class Resource:
    """A cloud resource with the fields that the tables show."""

    kind: str
    name: str
    id: str
    status: str
    detail: str = ""
    ours: bool = True
    raw: Any = None
    """The cloud's own description."""
    owner: str = ""
    """The stack and user in its mark; empty for none."""
    adopted: bool = False
    """Whether it is ours, but someone else created it."""

    def __post_init__(self) -> None:
        answers.validate_identifier(self.id, f"the id of a {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.id})"


def make_owner(stack: str, user_id: str) -> str:
    """Return the mark of a user's stack. Tags are short, so it has part of a digest instead of the user's id."""
    return f"{stack}@{hashlib.sha256(user_id.encode()).hexdigest()[:8]}"


def format_mark(owner: str) -> str:
    """Return the mark as one word, for descriptions and tags."""
    return f"{STACK}={owner}"


def parse_owner(resource: Any) -> str:
    """Return the owner in the mark of an address, a security group or a rule, or "" if it has none."""
    words = [resource.description or "", *(resource.tags or ())]
    return next((word.removeprefix(f"{STACK}=") for word in words if word.startswith(f"{STACK}=")), "")


def declared_name(resource: Resource) -> str:
    """Return the name under which a volume or a share is declared."""
    return str((resource.raw.metadata or {}).get(PART, ""))


def lease_name(owner: str) -> str:
    """Return the name of an owner's lease."""
    return f"larder:{owner}"


def access_key(stack: str, user_id: str, project_id: str) -> str:
    """Return a stack's access key. It is derived from the owner, so it can be found again and is created only once."""
    return hashlib.sha256(f"larder:{stack}:{user_id}:{project_id}".encode()).hexdigest()[:32]


def select_declared(resources: Sequence[Resource], name: str, cloud_name: str, adopt: bool) -> Resource | None:
    """Return our volume or share that is declared as `name` or, with `adopt`, the only one with the cloud's name."""
    matching = [item for item in resources if (declared_name(item) == name if item.ours else item.name == cloud_name)]
    return select_one(matching, adopt)


def require_ours(existing: Resource | None, kind: str, name: str) -> Resource:
    """Return a declared volume or share. Raises InputError if it doesn't exist or isn't ours."""
    if existing is None:
        raise InputError(f"the {kind} {name!r} doesn't exist yet", next_step=f"run `{kind} create {name}` or `up`")
    if not existing.ours:
        raise InputError(
            f"{existing} is not this stack's yet", next_step="run `--adopt up` to mark it, then run this again"
        )
    return existing


def select_one(resources: Sequence[Resource], adopt: bool, unique_names: bool = False) -> Resource | None:
    """Return our resource or, with `adopt`, the only one with the name; None if there is none.

    `resources` are all resources that carry our mark or have the name. Raises InputError, with the candidates, if the
    choice is ambiguous. Resources with another stack's mark are ignored, unless names are unique: then the name is
    taken.
    """
    ours = [resource for resource in resources if resource.ours]
    if not unique_names and not adopt:
        resources = [resource for resource in resources if resource.ours or not resource.owner]
    if len(ours) == 1:
        return ours[0]
    if len(ours) > 1:
        last = max(ours, key=age_order)
        raise InputError(
            _listed(f"there are {len(ours)} resources with the mark of this stack, expected one:", ours),
            next_step="delete the ones you don't need in the site's web interface, by id; then run this again. "
            f"{last.id} was created last: if nothing uses it, it is the one too many",
        )
    if not resources:
        return None
    if len(resources) > 1:
        raise InputError(
            _listed(f"{len(resources)} resources have this name, none with the mark of this stack:", resources),
            next_step="declare another name; or remove or rename all but one, then --adopt that one",
        )
    if not adopt:
        raise InputError(
            _listed("the name is taken by a resource that this stack did not create:", resources),
            next_step="declare another name; or, if the resource is yours, use --adopt to mark and manage it",
        )
    if resources[0].owner:
        raise InputError(
            f"{resources[0]} belongs to the stack {resources[0].owner.rpartition('@')[0]} (mark {resources[0].owner})",
            next_step="work with that stack's declaration, as its user; or declare another name",
        )
    return resources[0]


def age_order(item: Resource) -> tuple[str, str]:
    """Order by creation time, and by id if two are of the same second, so that all runs agree."""
    return (str(getattr(item.raw, "created_at", None) or ""), item.id)


def _listed(head: str, resources: Sequence[Resource]) -> Lines:
    return join_lines(
        head, *(f"  - {resource}: {resource.status} {resource.detail}".rstrip() for resource in resources)
    )
