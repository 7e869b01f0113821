"""Results of checking a link: what was read, why it is broken, or why it could not be checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from larder.errors import InputError
from larder.next_step import StageRun
from larder.terminal import join_lines


class VerifiedLink(NamedTuple):
    """A verified link."""

    looked_at: int
    of: int
    unit: str
    bytes: int
    """Bytes that were read and hashed."""
    remark: str = ""


class AbsentError(Exception):
    """There is no finished artifact at this place, so nothing is broken."""


class UnfollowedError(Exception):
    """The link can't be checked here. The message gives the reason, and how to check it."""


class ChainBreak(NamedTuple):
    """A place where the chain is broken."""

    what: str
    place: str
    sample: str = ""
    """The sample's path in the tree or in raw."""
    expected: str = ""
    found: str = ""
    cause: str = ""
    """The likely cause."""
    next_step: str = ""
    """The next step, if it isn't the link's default."""
    forced: bool = True
    """Whether the stage that repairs it needs LARDER_FORCE, since it wouldn't notice the fault itself."""


class BreakError(InputError):
    """The chain is broken."""

    def __init__(self, fault: ChainBreak) -> None:
        named = {
            "sample": fault.sample,
            "place": fault.place,
            "expected": fault.expected,
            "found": fault.found,
            "likely": fault.cause,
        }
        details = (f"  {name:<9} {value}" for name, value in named.items() if value)
        super().__init__(join_lines(fault.what, *details), next_step=fault.next_step)
        self.fault = fault

    def __reduce__(self) -> tuple[object, ...]:
        return BreakError, (self.fault,)


EDITED = "it was edited, or replaced, or the disk returns other bytes than were written (`dmesg`)"
REPLACED = f"something else wrote to the same path, or the store damaged it ({StageRun('s3', 'check')} diagnoses it)"


def changed_content_error(what: str, place: str, expected: str, found: str, cause: str, sample: str = "") -> BreakError:
    """Return the error for content with a wrong sha256."""
    return BreakError(ChainBreak(what, place, sample, f"sha256 {expected}", f"sha256 {found}", cause))


def to_json_fields(fault: ChainBreak) -> dict[str, Any]:
    """Return the fields of a fault for JSON output."""
    return {name: value for name, value in fault._asdict().items() if value and name != "forced"}
