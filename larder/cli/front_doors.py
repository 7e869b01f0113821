"""How users come to larder: messages tell them what to type, the way they came."""

FRONT_DOORS = {"make": "make", "larder": "larder", "module": "python3 -m larder"}
"""What they type, by the name that stages get in LARDER_FRONT_DOOR."""


def help_of(front_door: str, command: str = "") -> str:
    """Return what shows the settings of a command, or else the list of commands. Make takes no `--help` for us."""
    if front_door == "make":
        return f"python3 -m larder {command} --help" if command else "make help"
    return " ".join(filter(None, (front_door, command, "--help")))
