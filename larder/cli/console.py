"""What people see and are asked on the terminal."""

from __future__ import annotations

import sys

from larder import terminal


def say(*texts: str) -> None:
    """Print lines to stderr, escaped: stdout is for results."""
    terminal.say(*texts, file=sys.stderr)


def tell(*texts: str) -> None:
    """Print lines to stdout, escaped."""
    terminal.say(*texts)


def ask(question: str, yes: bool) -> bool:
    """Return whether the user agrees. `yes` answers for them; where nobody can answer, the answer is no."""
    if yes:
        say(f"{question}y")
        return True
    sys.stderr.write(terminal.escaped(question))
    sys.stderr.flush()
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer.endswith("\n"):  # nobody is there
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


def in_units(size: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
