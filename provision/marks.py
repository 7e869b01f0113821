"""Ownership: how a thing in a cloud says that this stack made it.

A mark is set in the request that makes the thing, so nothing of ours is ever without: metadata of servers and volumes,
the description of addresses, security groups and their rules, a header of buckets, the name of leases, the access key
of credentials. `--adopt` marks what somebody else made: as metadata, header, or tag.

It names the stack and its user, since the users of a project see all that is in it, and two may have a stack of the
same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from larder.errors import InputError
from larder.terminal import Lines, lines
from provision import answers

STACK = "larder:stack"
PART = "larder:part"
"""Which declared volume this is."""
BLANK = "larder:blank"
"""yes: made blank by us, and not formatted yet."""
GROWN = "larder:grown"
"""yes: the volume was made larger, and its file system not yet."""
IMAGE = "larder:image"
"""The declared image that a server was made from."""
ADOPTED = "larder:adopted"
"""yes: somebody else made it, and `--adopt` marked it."""
HEADER = "larder-stack"
"""Of a bucket, behind X-Container-Meta-."""


@dataclass(frozen=True)
class Thing:
    """Something in a cloud, as the tables show it."""

    kind: str
    name: str
    id: str
    status: str
    detail: str = ""
    ours: bool = True
    raw: Any = None
    """What the cloud said of it."""
    owner: str = ""
    """Whose mark it carries; empty for none."""
    adopted: bool = False
    """Whether it is ours, and somebody else made it."""

    def __post_init__(self) -> None:
        answers.identifier(self.id, f"the id of a {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.id})"


def owner(stack: str, user_id: str) -> str:
    """The mark of a user's stack. Tags are short, so a part of a digest stands for the user's id."""
    return f"{stack}@{hashlib.sha256(user_id.encode()).hexdigest()[:8]}"


def text(owner: str) -> str:
    """The mark as one word, for descriptions and tags."""
    return f"{STACK}={owner}"


def on_text(thing: Any) -> str:
    """Whose mark an address, a security group or a rule carries; empty for none."""
    words = [thing.description or "", *(thing.tags or ())]
    return next((word.removeprefix(f"{STACK}=") for word in words if word.startswith(f"{STACK}=")), "")


def lease_name(owner: str) -> str:
    return f"larder:{owner}"


def access_key(stack: str, user_id: str, project_id: str) -> str:
    """The access key of a stack's credentials. It follows from whose it is, so it is found again, and made once."""
    return hashlib.sha256(f"larder:{stack}:{user_id}:{project_id}".encode()).hexdigest()[:32]


def one(things: Sequence[Thing], adopt: bool, unique_names: bool = False) -> Thing | None:
    """The one thing that is meant: ours, or with `adopt` the only one of that name. None when there is none.

    `things` are all that carry our mark or have the name. InputError, with the candidates, where that is not one. What
    another stack has marked is never meant, unless names are unique: then it is in the way.
    """
    ours = [thing for thing in things if thing.ours]
    if not unique_names and not adopt:
        things = [thing for thing in things if thing.ours or not thing.owner]
    if len(ours) == 1:
        return ours[0]
    if len(ours) > 1:
        raise InputError(
            _listed(f"there are {len(ours)} with the mark of this stack, and only one can be meant:", ours),
            next_step="delete the ones you don't need in the site's web interface, by id; then run this again",
        )
    if not things:
        return None
    if len(things) > 1:
        raise InputError(
            _listed(f"{len(things)} have this name, none with the mark of this stack:", things),
            next_step="give the declared one another name, or remove or rename all but one, then --adopt that one",
        )
    if not adopt:
        raise InputError(
            _listed("the name is taken by something that this stack did not make:", things),
            next_step="give the declared one another name; or --adopt, if it is yours: then it is marked and managed",
        )
    if things[0].owner:
        raise InputError(
            f"{things[0]} belongs to the stack {things[0].owner.rpartition('@')[0]} (mark {things[0].owner})",
            next_step="work with that stack's declaration, as its user; or give the declared one another name",
        )
    return things[0]


def _listed(head: str, things: Sequence[Thing]) -> Lines:
    return lines(head, *(f"  - {thing}: {thing.status} {thing.detail}".rstrip() for thing in things))
