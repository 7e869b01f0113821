"""The Makefile: one line, which calls larder, for each command."""

from __future__ import annotations

import re
from pathlib import Path

from larder.cli.commands import COMMANDS

MAKEFILE = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
NOT_FOR_MAKE = {"provision", "completion"}
"""Commands that take words."""


def test_every_command_is_a_target() -> None:
    [names] = re.findall(r"^COMMANDS := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    targets = set(names.replace("\\\n", " ").split())
    assert targets == {command.name for command in COMMANDS} - NOT_FOR_MAKE | {"help"}


def test_it_decides_nothing() -> None:
    assert len(MAKEFILE.splitlines()) < 120
    assert not re.search(r"\b(define|foreach|eval|call|shell)\b", re.sub(r"#.*", "", MAKEFILE))
    recipes = [line for line in MAKEFILE.splitlines() if line.startswith("\t")]
    assert recipes == ["\t@python3 -m larder $@", "\t@python3 -m larder '$(subst ','\\'',$(firstword $@))'"]
