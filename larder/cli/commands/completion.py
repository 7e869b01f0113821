"""Prints a script that completes larder's commands, settings and flags in a shell."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App
from larder.cli.completion import SHELLS, script
from larder.cli.settings import shown
from larder.errors import ConfigurationError


def completion(app: App, words: Sequence[str]) -> None:
    """Print the script for the shell that the word names."""
    from larder.cli.commands import COMMANDS

    if len(words) != 1 or words[0] not in SHELLS:
        given = f", not {shown(' '.join(words))}" if words else ""
        raise ConfigurationError(
            f"completion takes the name of a shell{given}", next_step=app.name(f"completion {'|'.join(SHELLS)}")
        )
    print(script(words[0], COMMANDS), end="")
