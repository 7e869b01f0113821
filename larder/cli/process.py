"""Runs processes: what they are shown as, their environment, signals, and exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from larder.cli.settings import SECRETS
from larder.errors import ConfigurationError, ResourceError

INTERRUPTED = 130
if TYPE_CHECKING:
    Child = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Call:
    """One process to run.

    Attributes:
        argv: The program and its arguments. Nothing in it is secret.
        env: Variables that are set for it, on top of the environment.
        unset: Variables that it must not see: they are empty, and would hide what a file sets.
        env_files: Files whose variables it sees where the environment has none. Compose reads its own (`--env-file`).
        label: A label that finds the container it starts.
        quiet: Whether its output goes to stderr, since stdout is for results.
        folder: Where it runs; None is the checkout.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()
    label: str = ""
    quiet: bool = False
    folder: Path | None = None

    def silent(self) -> Call:
        """Return the same call with its output on stderr."""
        return replace(self, quiet=True)


def shown(call: Call) -> str:
    """Return a call as a line that a shell takes; secrets stay variables."""
    words: list[str] = []
    if call.unset:
        words += ["env", *(word for name in call.unset for word in ("-u", name))]
    for name, value in call.env.items():
        words.append(f'{name}="${name}"' if name in SECRETS and value else f"{name}={shlex.quote(value)}")
    if call.env_files:
        wrapper = ("python3", "-m", "larder.cli.dotenv", *map(str, call.env_files), "--")
        words += map(shlex.quote, wrapper)
    words += map(shlex.quote, call.argv)
    if call.quiet:
        words.append(">&2")
    return " ".join(words)


def environment(call: Call, environ: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a call. `values` are those of its files."""
    merged = {**values, **environ} if call.env_files else dict(environ)
    for name in call.unset:
        merged.pop(name, None)
        if call.env_files and name in values:
            merged[name] = values[name]
    return {**merged, **call.env}


class _Signalled(Exception):
    """The first signal arrived while a process was running."""


class Interrupts:
    """Remembers a signal that asked for the end, and hands it on to the process that is running."""

    def __init__(self) -> None:
        self.number = 0
        self.child: Child | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        first, self.number = not self.number, self.number or number
        child = self.child
        if child is None:
            raise KeyboardInterrupt
        if number != signal.SIGINT or not _from_the_keyboard():  # the keyboard's reaches the child, too
            child.send_signal(number)
        if first:
            raise _Signalled  # else the wait for the child would go on


def _from_the_keyboard() -> bool:
    """Whether this process is in the foreground of a terminal, whose Ctrl-C goes to all of its processes."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Catch SIGINT and SIGTERM, unless they are ignored, as `nohup` and shells in the background have it."""
    handler = Interrupts()
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def run(
    call: Call, root: Path, environ: Mapping[str, str], handler: Interrupts,
    on_interrupt: Callable[[Call, Child], None] | None = None, doctor: str = "larder doctor",
) -> int:  # fmt: skip
    """Run a call to its end and return its exit code; 130 after an interrupt.

    Args:
        call: What to run.
        root: The folder to run it in.
        environ: Its environment, whole.
        handler: Who hears signals.
        on_interrupt: Sees to what the process leaves when it was interrupted.
        doctor: What the user types to have the machine checked.
    """
    try:
        child = subprocess.Popen(call.argv, cwd=call.folder or root, env=environ, stdout=_stdout(call))
    except FileNotFoundError:
        raise ResourceError(f"{call.argv[0]} is not there", next_step=f"{doctor} says what is missing") from None
    except OSError as error:
        raise ResourceError(
            f"{call.argv[0]} can't be run: {error.strerror}", next_step=f"{doctor} says what is wrong"
        ) from None
    handler.child = child
    try:
        try:
            code = child.wait()
        except _Signalled:
            if on_interrupt is not None:
                on_interrupt(call, child)
            child.wait()
            return INTERRUPTED
    finally:
        handler.child = None
    return code if code >= 0 else 128 - code


def _stdout(call: Call) -> int | None:
    return sys.stderr.fileno() if call.quiet else None


def output(
    argv: Sequence[str], environ: Mapping[str, str], seconds: float = 30.0, folder: Path | None = None
) -> tuple[int, str, str]:
    """Run a short program and return its exit code, stdout and stderr; 127 where it is not installed.

    Args:
        argv: The program and its arguments.
        environ: Its environment, whole.
        seconds: How long it may take.
        folder: The folder to run it in; None for the current one.

    Raises:
        ConfigurationError: The program doesn't answer.
    """
    try:
        ended = subprocess.run(
            list(argv), capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=seconds,
            env=dict(environ), cwd=folder, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return 127, "", f"{argv[0]} is not installed"
    except OSError as error:  # it may not be run, or is no program
        return 126, "", f"{argv[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"`{' '.join(argv[:3])}` has not answered for {seconds:.0f} s",
            next_step="restart the container engine, or set RUNNER=host to work without one",
        ) from None
    return ended.returncode, ended.stdout, ended.stderr
