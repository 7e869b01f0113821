"""What following a link comes to: how much was looked at, or why it doesn't hold or couldn't be followed."""

from __future__ import annotations

from typing import Any, NamedTuple

from larder.errors import InputError
from larder.next_step import Run
from larder.terminal import lines


class Checked(NamedTuple):
    """A link that holds."""

    looked_at: int
    of: int
    unit: str
    bytes: int
    """That were read and hashed."""
    remark: str = ""


class AbsentError(Exception):
    """There is nothing at this place: no finished data, and so no break either."""


class UnfollowedError(Exception):
    """The link can't be followed here, with the reason, and how to follow it."""


class Fault(NamedTuple):
    """A place where the chain is broken."""

    what: str
    place: str
    sample: str = ""
    """Its path in the tree, or in raw."""
    expected: str = ""
    found: str = ""
    cause: str = ""
    """The likely one."""
    next_step: str = ""
    """Where it isn't the link's own."""
    forced: bool = True
    """Whether the stage that mends it must be told to do its work again, since it wouldn't see that by itself."""


class BreakError(InputError):
    """The chain is broken."""

    def __init__(self, fault: Fault) -> None:
        named = {
            "sample": fault.sample, "place": fault.place, "expected": fault.expected, "found": fault.found,
            "likely": fault.cause,
        }  # fmt: skip
        details = (f"  {name:<9} {value}" for name, value in named.items() if value)
        super().__init__(lines(fault.what, *details), next_step=fault.next_step)
        self.fault = fault

    def __reduce__(self) -> tuple[object, ...]:
        return BreakError, (self.fault,)


EDITED = "it was edited, or replaced, or the disk gives back other bytes than it took (`dmesg`)"
REPLACED = f"something else wrote to the same place, or the store damaged it ({Run('s3', 'check')} looks)"


def changed(what: str, place: str, expected: str, found: str, cause: str, sample: str = "") -> BreakError:
    """The error for content with another sha256 than it must have."""
    return BreakError(Fault(what, place, sample, f"sha256 {expected}", f"sha256 {found}", cause))


def as_figures(fault: Fault) -> dict[str, Any]:
    """For machines: what is known of a break."""
    return {name: value for name, value in fault._asdict().items() if value and name != "forced"}
