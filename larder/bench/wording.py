"""Errors of loaders in terms of the settings that a program has, and of the stages that make the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from larder.errors import LarderError
from larder.loaders.remedies import ABSENT, GONE, OTHER_KIND, RENEW, RESTORE, SURPLUS
from larder.next_step import forced
from larder.settings import Settings, settings_of
from larder.terminal import Lines

_ARGUMENT = re.compile(r"^(  - |)(\w+)=", re.MULTILINE)


@contextmanager
def in_settings(kind: type[Settings], steps: Mapping[str, str]) -> Iterator[None]:
    """A block in which an error that names arguments names the settings of `kind` instead.

    `steps` are the next steps that are better here, by those that the library gives.
    """
    try:
        yield
    except LarderError as error:
        names = {setting.field: setting.names[0] for setting in settings_of(kind)}
        what = Lines(_ARGUMENT.sub(lambda found: f"{found[1]}{names.get(found[2], found[2])}=", error.what))
        step = steps.get(error.next_step, error.next_step)
        step = re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), step)
        raise type(error)(what, next_step=step) from error


def steps_with(made_by: str) -> dict[str, str]:
    """The next steps for data that `made_by` makes (larder.next_step.MAKES): it sees by itself what a listing shows."""
    return {
        ABSENT: f"run {made_by}",
        RESTORE: f"run {made_by}, which puts it back",
        RENEW: f"run {made_by}, which uploads what differs; if it finds no difference, {forced(made_by)}",
        GONE: f"run {made_by}, which puts back what was deleted",
        SURPLUS: f"remove what is there beside what {made_by} made",
        OTHER_KIND: f"let the settings name what {made_by} made: `data_dir`, or `bucket` and `prefix`",
    }
