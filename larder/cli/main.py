"""Parses the command line, runs a command, and turns what ends it into an exit code."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from larder import __version__
from larder.cli import help as pages
from larder.cli.app import App, Failed
from larder.cli.commands import BY_NAME, Command
from larder.cli.console import say
from larder.cli.front_doors import FRONT_DOORS, help_of
from larder.cli.makeflags import overrides
from larder.cli.process import INTERRUPTED, interrupts
from larder.cli.settings import Settings, flags_of, known, resolve, shown
from larder.errors import ConfigurationError, LarderError, explain_os_error

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class Invocation(NamedTuple):
    """What the command line says.

    Attributes:
        command: The command; None for help and version.
        given: Settings, by name.
        words: What the command itself gets.
        dry_run: Whether calls are printed in place of being run.
        page: The text to print and end with; empty to run the command.
    """

    command: Command | None
    given: Mapping[str, str]
    words: tuple[str, ...] = ()
    dry_run: bool = False
    page: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `larder` and return its exit code (see larder.errors)."""
    if argv is None:  # this process is the command
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as others in a pipe that nobody reads any more
    environ = dict(os.environ)
    front_door = _front_door(environ)
    words = sys.argv[1:] if argv is None else argv
    with interrupts() as handler:
        try:
            invocation = parse(words, environ, front_door)
            if invocation.page or invocation.command is None:
                print(invocation.page, end="")
                return 0
            root = Path.cwd() if invocation.command.anywhere else find_root()
            settings = _settings(root, invocation.command, invocation.given, environ)
            app = App(settings, handler, invocation.dry_run, front_door)
            invocation.command.run(app, invocation.words)
            app.finish()
        except Failed as failed:
            return failed.code
        except LarderError as error:
            return _fail(error)
        except KeyboardInterrupt:
            say("interrupted; run the same command again")
            return INTERRUPTED
        except OSError as error:
            known = explain_os_error(error)
            if known is None:
                raise
            return _fail(known)
    return 0


def _settings(root: Path, command: Command, given: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Return the settings of a run; for a command that also works without them, the defaults where they are wrong."""
    try:
        return resolve(root, given, environ, Path.cwd())
    except ConfigurationError as fault:
        if not command.tells_faults:
            raise
        others = {name: value for name, value in environ.items() if name not in known()}
        return Settings(root, {}, others, {}, fault=fault)


def _front_door(environ: Mapping[str, str]) -> str:
    """Return how the user came, as they would type it again."""
    if environ.get("LARDER_FRONT_DOOR") == "make":
        return FRONT_DOORS["make"]
    return FRONT_DOORS["module" if Path(sys.argv[0]).name == "__main__.py" else "larder"]


def _fail(error: LarderError) -> int:
    sys.stdout.flush()
    say(error.shown())
    return error.exit_code


def find_root() -> Path:
    """Return the checkout: the one this code lies in, else the one around the current folder.

    Raises:
        ConfigurationError: There is none.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (folder / "compose" / "stage.yaml").is_file() and (folder / "services").is_dir():
            return folder
    raise ConfigurationError(
        "this command needs a checkout of larder, and there is none here",
        next_step="git clone larder's repository, and run the command in it",
    )


def parse(argv: Sequence[str], environ: Mapping[str, str], front_door: str = "larder") -> Invocation:
    """Return what a command line says.

    Settings are given as `NAME=value`, as make takes them, or by the flags of the command's stages.

    Raises:
        ConfigurationError: A command, flag or word isn't known; the message suggests the nearest.
    """
    words, dry_run = list(argv), False
    given = overrides(environ.get("MAKEFLAGS", "")) if front_door == "make" else {}
    command: Command | None = None
    rest: list[str] = []
    while words:
        word = words.pop(0)
        assignment = _ASSIGNMENT.fullmatch(word)
        if command is not None and command.words == "...":
            rest += [word, *words]
            break
        if command is None and word == "help":
            words = [*words, "--help"]
        elif word in ("-h", "--help"):
            page = pages.of_command(command, front_door) if command else pages.overview(front_door)
            return Invocation(None, given, page=page)
        elif word == "--version":
            return Invocation(None, given, page=f"larder {__version__}\n")
        elif word in ("-n", "--dry-run"):
            dry_run = True
        elif word in ("-y", "--yes"):
            given["YES"] = "1"
        elif assignment:
            given[assignment[1]] = assignment[2]
        elif word.startswith("-"):
            name, value = _flag(word, words, command, front_door)
            given[name] = value
        elif command is None:
            command = _command(word, front_door)
        elif command.words:
            rest.append(word)
        else:
            raise ConfigurationError(
                f"{command.name} takes no word {shown(word)!r}",
                next_step="give settings as NAME=value, or by their flags",
            )
    if command is None:
        return Invocation(None, given, page=pages.overview(front_door))
    return Invocation(command, given, tuple(rest), dry_run)


def _command(word: str, front_door: str) -> Command:
    if word in BY_NAME:
        return BY_NAME[word]
    near = difflib.get_close_matches(word, [name for name, command in BY_NAME.items() if not command.hidden], n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ConfigurationError(
        f"no such command: {shown(word)}{meant}", next_step=f"{help_of(front_door)} lists all of them"
    )


def _flag(word: str, words: list[str], command: Command | None, front_door: str) -> tuple[str, str]:
    """Return the setting that a flag sets, and its value, taken from the words behind it where it must be."""
    flag, equals, value = word.partition("=")
    flags = flags_of(command.stages) if command else {}
    setting = flags.get(flag)
    if setting is None:
        near = difflib.get_close_matches(flag, [*flags, "--help", "--dry-run", "--yes"], n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        where = f"{command.name} has no flag" if command else "no such flag:"
        raise ConfigurationError(
            f"{where} {shown(flag)}{meant}", next_step=help_of(front_door, command.name if command else "")
        )
    if not equals and setting.default in ("true", "false"):
        value = "true"
    elif not equals:
        if not words:
            raise ConfigurationError(f"{flag} needs a value", next_step=f"give it as {flag}=value")
        value = words.pop(0)
    return setting.name, value
