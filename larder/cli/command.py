"""Define a row of the table of commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from larder.cli.app import App

CommandFunction = Callable[[App, Sequence[str]], None]


class Command(NamedTuple):
    """One command.

    Attributes:
        name: Name, also of make's target.
        group: Heading in `--help`.
        summary: One-line description.
        run: Function that runs it with the words after its name.
        stages: Stages whose settings it accepts.
        settings: Other settings that it accepts.
        words: Placeholder for its words in `--help`; empty if it accepts none.
        hidden: Whether `--help` omits it.
        anywhere: Whether it works outside of a checkout, and needs none.
        works_installed: Whether it works without a checkout, from the installed package, where there is none.
        reports_bad_settings: Whether it reports invalid settings itself.
    """

    name: str
    group: str
    summary: str
    run: CommandFunction
    stages: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    words: str = ""
    hidden: bool = False
    anywhere: bool = False
    works_installed: bool = False
    reports_bad_settings: bool = False
