"""How users start larder, so that messages show commands in the form that they type."""

from __future__ import annotations

INVOCATIONS = {"make": "make", "larder": "larder", "module": "python3 -m larder"}
"""What users type, by the value of LARDER_FRONT_DOOR for stages."""


def help_command(invocation: str, command: str = "") -> str:
    """Return the command that shows a command's settings, or all commands. Make can't forward `--help`."""
    if invocation == "make":
        return f"python3 -m larder {command} --help" if command else "make help"
    return " ".join(filter(None, (invocation, command, "--help")))
