"""Print a script that completes larder's commands, settings and flags in a shell."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App
from larder.cli.completion import SHELLS, script
from larder.cli.setting_values import printable
from larder.errors import ConfigurationError


def completion(app: App, words: Sequence[str]) -> None:
    """Print the completion script for the given shell."""
    from larder.cli.commands import COMMANDS

    if len(words) != 1 or words[0] not in SHELLS:
        given = f", not {printable(' '.join(words))}" if words else ""
        raise ConfigurationError(
            f"completion takes the name of a shell{given}",
            next_step=app.typed_command(f"completion {'|'.join(SHELLS)}"),
        )
    print(script(words[0], COMMANDS), end="")
