"""Two runs at the same time: at one machine, the second is refused; across machines, the later one withdraws.

A lock in the state folder separates runs on one machine. Across machines, marks and creation times decide: a run that
finds an older resource of the same stack beside the one that it has just created deletes its own, and stops.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from larder.errors import InputError
from provision.clouds import WaitTimeoutError, poll_until
from provision.marks import Resource, age_order
from provision.stack import Stack

LOCK = "lock"
WITHDRAW_SECONDS = 20.0
"""Time for another machine's run to delete what it created later than this one."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def lock_stack(stack: Stack, command: str) -> Iterator[None]:
    """Keep other commands on this machine from changing the stack. Raises InputError if one does so already."""
    stack.state_folder.mkdir(parents=True, exist_ok=True)
    with (stack.state_folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another command changes the stack {stack.name} at this moment: {file.read(200).strip() or 'unknown'}",
                next_step="wait until it has ended, then run this again",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            stack.report("warning", f"{stack.state_folder}: its file system has no locks; run one command at a time")
        file.truncate(0)
        file.write(f"`{command}`, process {os.getpid()}\n")
        file.flush()
        yield


def withdraw_if_later(
    stack: Stack, created: Resource, list_ours: Callable[[], Sequence[Resource]], delete: Callable[[], object]
) -> None:
    """Delete what this run has created if another machine's run created the same earlier, and raise InputError.

    If the other one is later, wait until that run has withdrawn. If it doesn't, since it has ended or took itself for
    the only one, withdraw as well: the next run finds what is left.

    Args:
        stack: The stack.
        created: The resource that this run has created.
        list_ours: Returns the stack's resources that stand for the same part of the declaration.
        delete: Deletes `created`.
    """

    def is_alone() -> bool | None:
        ours = {item.id: item for item in list_ours()}
        mine = ours.get(created.id)
        if mine is None or len(ours) == 1:
            return True
        first = min(ours.values(), key=age_order)
        if first.id == created.id:
            return None
        raise withdraw(first)

    def withdraw(other: Resource) -> InputError:
        stack.report("delete", f"{created}, since another run created {other}")
        delete()
        return InputError(
            f"another run created {other} for the stack {stack.name} at the same time; this one deleted its own",
            next_step="wait until the other run has ended, then run this again: it finds what was created",
        )

    what = f"another run of the stack {stack.name} withdraws what it created after {created}"
    try:
        poll_until(stack.reporter, what, is_alone, WITHDRAW_SECONDS, "")
    except WaitTimeoutError:
        raise withdraw(next(item for item in list_ours() if item.id != created.id)) from None
