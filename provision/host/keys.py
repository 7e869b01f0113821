#!/usr/bin/env python3
"""Write S3 keys to `.env` and rclone's configuration, and keep all other content.

One file for Python 3.9 and newer, standard library only: it is sent over SSH, and works by hand. provision uses its
functions for the files on its own machine, too. The keys come on standard input: arguments are visible to every user.
"""

from __future__ import annotations

import argparse
import configparser
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

USAGE = """\
reads JSON from standard input: {"settings": {"S3_BUCKET": "...", ...}, "section": {"type": "s3", ...}}

Both files get mode 0600. Other keys that they hold are kept in a copy, NAME.before-STACK. Exit codes: 2 wrong usage,
3 a file or folder in an unexpected state.
"""


WRITE_SECONDS = 10.0
"""No write of these small files takes longer."""


class KeysError(Exception):
    """A file that can't be changed. Neither part quotes the file, which may hold secrets."""

    def __init__(self, what: str, next_step: str, code: int = 3) -> None:
        super().__init__(what)
        self.what, self.next_step, self.code = what, next_step, code


@dataclass(frozen=True)
class KeyFiles:
    """Where the keys of a stack are written."""

    env: Path | None
    """`.env`; None leaves it out."""
    rclone: Path
    remote: str
    """The section's name in rclone's configuration."""
    stack: str
    """Part of the name of a copy."""

    def are_current(self, settings: Mapping[str, str], section: Mapping[str, str]) -> bool:
        """Return whether the files have these keys, and only their owner may read them."""
        return not self._outdated(settings, section)

    def write(self, settings: Mapping[str, str], section: Mapping[str, str]) -> Iterator[str]:
        """Write the files that lack the keys, and yield a line for each step. A file is changed entirely or not."""
        outdated = self._outdated(settings, section)  # reads both, so that a faulty one leaves the other unchanged
        if self.env is not None:
            if self.env in outdated:
                text = read_text(self.env)
                yield from self._back_up(
                    self.env, f"AWS_ACCESS_KEY_ID={settings['AWS_ACCESS_KEY_ID']}" not in text.splitlines()
                )
                write_secret_file(self.env, with_settings(text, settings))
            yield f"{'wrote' if self.env in outdated else 'found'} the S3 keys: {self.env}"
        if self.rclone in outdated:
            remotes = read_rclone_config(self.rclone)
            access = remotes.get(self.remote, "access_key_id", fallback=None)
            is_other = remotes.has_section(self.remote) and access != section["access_key_id"]
            yield from self._back_up(self.rclone, is_other)
            remotes[self.remote] = dict(section)
            write_rclone_config(self.rclone, remotes)
        yield f"{'wrote' if self.rclone in outdated else 'found'} the S3 keys: {self.rclone}"

    def _outdated(self, settings: Mapping[str, str], section: Mapping[str, str]) -> list[Path]:
        remotes = read_rclone_config(self.rclone)
        present = dict(remotes[self.remote]) if remotes.has_section(self.remote) else {}
        outdated = [self.rclone] if present != section or _is_readable_by_others(self.rclone) else []
        if self.env is not None:
            text = read_text(self.env)
            if with_settings(text, settings) != text or _is_readable_by_others(self.env):
                outdated.append(self.env)
        return outdated

    def _back_up(self, path: Path, has_other_keys: bool) -> Iterator[str]:
        """Copy a file once before ours replace other keys in it."""
        backup = path.with_name(f"{path.name}.before-{self.stack}")
        if has_other_keys and path.exists() and not backup.exists():
            write_secret_file(backup, read_text(path))
            yield f"kept a copy of {path} as it was: {backup}"


def _is_readable_by_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)


def read_text(path: Path) -> str:
    """Return a file's text, or "" if it doesn't exist."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not UTF-8 text", "convert or move it, then run this again") from None


def with_settings(text: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` with the values set in place, and all other lines unchanged."""
    lines, left = text.splitlines(), dict(values)
    for at, line in enumerate(lines):
        name = _name(line)
        if name in values:
            lines[at] = f"{name}={values[name]}"  # all of them, since the last one counts
            left.pop(name, None)
    return "\n".join([*lines, *(f"{name}={value}" for name, value in left.items()), ""])


def _name(line: str) -> str:
    match = re.match(r"\s*(?:export\s+)?([A-Z0-9_]+)\s*=", line)
    return match[1] if match else ""


def read_rclone_config(path: Path) -> configparser.RawConfigParser:
    """Parse rclone's configuration. Raises KeysError if that fails."""
    remotes = configparser.RawConfigParser(default_section="", delimiters=("=",), interpolation=None)
    remotes.optionxform = str  # type: ignore[assignment,method-assign]
    text = read_text(path)
    try:
        remotes.read_string(text)
    except configparser.Error as error:
        encrypted = "RCLONE_ENCRYPT" in text
        raise KeysError(
            f"{path}: {'it is encrypted, which only rclone reads' if encrypted else _without_text(error)}",
            "name another file as [credentials] rclone_config, or move it" if encrypted else "correct that file",
            2,
        ) from None
    return remotes


def _without_text(error: configparser.Error) -> str:
    """Describe a parser's error without the line itself, which may hold a secret."""
    if not isinstance(error, configparser.ParsingError):
        return str(error)
    lines = [number for number, _ in getattr(error, "errors", ())] or [getattr(error, "lineno", 0)]
    return f"it can't be understood in line {', '.join(map(str, lines))}"


def write_rclone_config(path: Path, remotes: configparser.RawConfigParser) -> None:
    """Write rclone's configuration."""
    text = io.StringIO()
    remotes.write(text)
    write_secret_file(path, text.getvalue())


def write_secret_file(path: Path, text: str) -> None:
    """Write a file with a secret, atomically and with mode 0600. Follows links."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_leftovers(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # has mode 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writes of a file have left, since it holds the secret, too. A write takes no such time."""
    for leftover in target.parent.glob(f".{target.name}.????????"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > WRITE_SECONDS:
                leftover.unlink()


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="keys.py", description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--env-file", type=Path, help="`.env`, in a folder that exists; left out by default")
    parser.add_argument("--rclone-config", type=Path, default=Path("~/.config/rclone/rclone.conf"))
    parser.add_argument("--remote", default="larder", help="the section in rclone's configuration; default larder")
    parser.add_argument("--stack", default="larder", help="for the name of a copy; default larder")
    given = parser.parse_args()
    env = given.env_file.expanduser() if given.env_file else None
    files = KeyFiles(env, given.rclone_config.expanduser(), given.remote, given.stack)
    try:
        settings, section = _read_keys()
        if env is not None and not env.parent.is_dir():
            raise KeysError(f"there is no folder {env.parent}", "clone the repository there (repository.sh)")
        for line in files.write(settings, section):
            print(line)
    except KeysError as error:
        return _fail(error.what, error.next_step, error.code)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}", "check the owner, the mode and the free space of it", 3)
    return 0


def _read_keys() -> tuple[dict[str, str], dict[str, str]]:
    try:
        keys = json.load(sys.stdin)
        settings, section = dict(keys["settings"]), dict(keys["section"])
        if settings["AWS_ACCESS_KEY_ID"] == section["access_key_id"]:
            return settings, section
    except (ValueError, KeyError, TypeError):
        pass  # an error's own text may hold a secret
    raise KeysError("standard input doesn't hold the keys as JSON", "keys.py --help shows its form", 2)


def _fail(what: str, next_step: str, code: int) -> int:
    print(f"error: {what}\n  next step: {next_step}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(_main())
