"""Run processes: their display, environment, signals, and exit codes."""

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

from larder.cli.setting_specs import SECRETS
from larder.errors import ConfigurationError, ResourceError

INTERRUPTED = 130
if TYPE_CHECKING:
    ChildProcess = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Call:
    """One process to run.

    Attributes:
        argv: Program and arguments, without secrets.
        env: Variables to set in addition to the environment.
        unset: Variables to remove: they are empty and would hide what a file sets.
        env_files: Files with variables that the environment doesn't override. Compose reads its own (`--env-file`).
        label: Label that identifies the container it starts.
        to_stderr: Whether its output goes to stderr, since stdout is for results.
        folder: Working directory; None is the checkout.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()
    label: str = ""
    to_stderr: bool = False
    folder: Path | None = None

    def redirected_to_stderr(self) -> Call:
        """Return the same call with its output on stderr."""
        return replace(self, to_stderr=True)


def as_shell_line(call: Call) -> str:
    """Return a call as a line of shell; secrets stay references to variables."""
    words: list[str] = []
    if call.unset:
        words += ["env", *(word for name in call.unset for word in ("-u", name))]
    for name, value in call.env.items():
        words.append(f'{name}="${name}"' if name in typed_secrets(call) else f"{name}={shlex.quote(value)}")
    if call.env_files:
        wrapper = ("python3", "-m", "larder.cli.dotenv", *map(str, call.env_files), "--")
        words += map(shlex.quote, wrapper)
    words += map(shlex.quote, call.argv)
    if call.to_stderr:
        words.append(">&2")
    return " ".join(words)


def typed_secrets(call: Call) -> list[str]:
    """Return the secrets of a call that its line of shell takes from variables of the shell."""
    return [name for name, value in call.env.items() if name in SECRETS and value]


def environment(call: Call, environ: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a call. `values` are the variables of its files."""
    merged = {**values, **environ} if call.env_files else dict(environ)
    for name in call.unset:
        merged.pop(name, None)
        if call.env_files and name in values:
            merged[name] = values[name]
    return {**merged, **call.env}


class _Signalled(Exception):
    """The first signal arrived while a process was running."""


class SignalHandler:
    """Signal handler that records the first signal and forwards signals to the running process."""

    def __init__(self) -> None:
        self.number = 0
        self.child: ChildProcess | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Forward a signal to the child, and end the wait for it on the first one."""
        first, self.number = not self.number, self.number or number
        child = self.child
        if child is None:
            raise KeyboardInterrupt
        if number != signal.SIGINT or not _is_foreground():  # Ctrl-C reaches the child by itself
            child.send_signal(number)
        if first:
            raise _Signalled  # interrupts the wait for the child


def _is_foreground() -> bool:
    """Return whether this process is in the foreground of a terminal, whose Ctrl-C signals the whole group."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


@contextmanager
def handle_signals() -> Iterator[SignalHandler]:
    """Handle SIGINT and SIGTERM, unless they are ignored, as under `nohup` or in a shell's background."""
    handler = SignalHandler()
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
    call: Call,
    root: Path,
    environ: Mapping[str, str],
    handler: SignalHandler,
    on_interrupt: Callable[[Call, ChildProcess], None] | None = None,
    doctor: str = "larder doctor",
) -> int:
    """Run a call to its end and return its exit code; 130 after an interrupt.

    Args:
        call: The call.
        root: Working directory, unless the call has one.
        environ: The complete environment.
        handler: Handles signals.
        on_interrupt: Cleans up after an interrupted call.
        doctor: The command that checks the machine, as the user types it.

    Raises:
        ResourceError: If the program can't be started.
    """
    try:
        stdout = sys.stderr.fileno() if call.to_stderr else None
        child = subprocess.Popen(call.argv, cwd=call.folder or root, env=environ, stdout=stdout)
    except FileNotFoundError:
        raise ResourceError(f"{call.argv[0]} is not installed", next_step=f"{doctor} says what is missing") from None
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


def capture(
    argv: Sequence[str], environ: Mapping[str, str], seconds: float = 30.0, folder: Path | None = None
) -> tuple[int, str, str]:
    """Run a short program and return its exit code, stdout and stderr; 127 if it isn't installed.

    Args:
        argv: Program and arguments.
        environ: The complete environment.
        seconds: Time limit.
        folder: Working directory; None is the current one.

    Raises:
        ConfigurationError: If the program exceeds the time limit.
    """
    try:
        ended = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            env=dict(environ),
            cwd=folder,
            check=False,
        )
    except FileNotFoundError:
        return 127, "", f"{argv[0]} is not installed"
    except OSError as error:  # not executable, or not a program
        return 126, "", f"{argv[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"`{' '.join(argv[:3])}` has not answered for {seconds:.0f} s",
            next_step="restart the container engine, or set RUNNER=host to work without one",
        ) from None
    return ended.returncode, ended.stdout, ended.stderr
