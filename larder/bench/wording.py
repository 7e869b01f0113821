"""Express errors of loaders in terms of a program's settings, and of the stages that make the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from larder.errors import LarderError
from larder.loaders.hints import CREATE_AGAIN, CREATE_FIRST, LOAD_AGAIN, NAME_OTHER_PLACE, REMOVE_SURPLUS, RESTORE
from larder.next_step import with_force
from larder.settings import Settings, settings_of
from larder.terminal import Lines

_ARGUMENT = re.compile(r"^(  - |)(\w+)=", re.MULTILINE)


@contextmanager
def name_settings_in_errors(kind: type[Settings], steps: Mapping[str, str]) -> Iterator[None]:
    """Replace the names of arguments in errors by the names of settings.

    Args:
        kind: The settings of the program.
        steps: Replacements for next steps of the library.
    """
    try:
        yield
    except LarderError as error:
        names = {setting.field: setting.names[0] for setting in settings_of(kind)}
        what = Lines(_ARGUMENT.sub(lambda match: f"{match[1]}{names.get(match[2], match[2])}=", error.what))
        step = steps.get(error.next_step, error.next_step)
        step = re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[0]), step)
        raise type(error)(what, next_step=step) from error


def next_steps_for(made_by: str) -> dict[str, str]:
    """Return the next steps for data that `made_by` makes (see `larder.next_step.CREATED_BY`).

    The stage itself finds missing files and wrong lengths. Only the next step for damaged content forces it to run.
    """
    return {
        CREATE_FIRST: f"run {made_by}",
        RESTORE: f"run {made_by}, which restores it",
        CREATE_AGAIN: f"run {made_by}, which uploads what differs; if it finds no difference, {with_force(made_by)}",
        LOAD_AGAIN: f"run {made_by}, which restores what was deleted",
        REMOVE_SURPLUS: f"remove files that {made_by} didn't make",
        NAME_OTHER_PLACE: f"let the settings name what {made_by} made: `data_dir`, or `bucket` and `prefix`",
    }
