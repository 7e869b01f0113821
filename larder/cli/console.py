"""Print messages and ask questions on the terminal."""

from __future__ import annotations

import sys

from larder import terminal


def print_message(*texts: str) -> None:
    """Print lines to stderr, escaped; stdout is for results."""
    terminal.print_escaped(*texts, file=sys.stderr)


def print_result(*texts: str) -> None:
    """Print lines to stdout, escaped."""
    terminal.print_escaped(*texts)


def ask(question: str, yes: bool = False) -> bool | None:
    """Return whether the user agrees; None if nobody answers, since the input has ended. `yes` answers for them."""
    if yes:
        print_message(f"{question}y")
        return True
    sys.stderr.write(terminal.escape(question))
    sys.stderr.flush()
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes") if answer else None


def format_bytes(size: float) -> str:
    """Format a number of bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
