"""Read `.env` files by the rules of `docker compose`, so that both runners see the same settings.

`python -m larder.cli.dotenv FILE... -- COMMAND` runs a command with the files' variables, as
`docker compose --env-file FILE` does: later files override earlier ones, and the environment overrides both.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from larder.errors import ConfigurationError
from larder.terminal import print_escaped

_BLANK = "\t\v\f\r \x85\xa0"
_ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0\d{0,3})")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<named>[_a-zA-Z]\w*)|(?P<brace>\{))", re.ASCII)
_BRACED = re.compile(r"([_a-zA-Z]\w*)(?:(:?[-+?])(.*))?", re.ASCII | re.DOTALL)

Lookup = Callable[[str], "str | None"]


def read(files: Iterable[Path], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `files`.

    Later files override earlier ones. Values may refer to earlier variables and to `environ`.

    Raises:
        ConfigurationError: If a file can't be read, or a line is invalid. The message names file and line, but no
            value.
    """
    values: dict[str, str] = {}
    for file in files:
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(f"cannot read {file}: {why}", next_step=f"fix or move {file}") from None
        try:
            parse(text, values, environ)
        except ValueError as error:
            raise ConfigurationError(
                f"{file}, {error}", next_step="write NAME=value on each line, and put quotes around unusual values"
            ) from None
    return values


def parse(text: str, values: dict[str, str], environ: Mapping[str, str]) -> None:
    """Add the variables in `text` to `values`. Raise ValueError that names the line."""

    def lookup(name: str) -> str | None:
        return environ[name] if name in environ else values.get(name)

    at = 0
    while (at := _statement(text, at)) < len(text):
        line = 1 + text.count("\n", 0, at)
        name, at, inherited = _name(text, at, line)
        if inherited:  # a name alone takes the value from the environment
            value = lookup(name)
        else:
            value, at = _value(text, at, line, lookup)
        if value is not None and name:  # compose accepts `=value` and ignores it
            values[name] = value


def _statement(text: str, at: int) -> int:
    """Return the position of the next statement, after blank lines and comments."""
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        else:
            break
    return at


def _name(text: str, at: int, line: int) -> tuple[str, int, bool]:
    """Return the variable's name, the position of its value, and whether there is no value."""
    exported = re.compile(r"export\s+").match(text, at)
    start = at = exported.end() if exported else at
    while at < len(text) and text[at] not in "=:\n":
        if not (text[at] in _BLANK or text[at] in "_.-[]" or text[at].isalnum()):
            raise ValueError(f"line {line}: a name can't hold {text[at]!r}")
        at += 1
    name = text[start:at].rstrip()
    if " " in name:
        raise ValueError(f"line {line}: expected NAME=value")
    inherited = at == len(text) or text[at] == "\n"
    at += 1
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return name, at, inherited


def _value(text: str, at: int, line: int, lookup: Lookup) -> tuple[str, int]:
    """Return the value at `at`, and the position after it."""
    quote = text[at : at + 1]
    if quote not in ("'", '"'):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        return substitute(text[at:end].partition(" #")[0].rstrip(), lookup, line), end
    raw, end = _quoted(text, at, line)
    return (raw if quote == "'" else substitute(_ESCAPE.sub(_unescape, raw), lookup, line)), end


def _quoted(text: str, at: int, line: int) -> tuple[str, int]:
    quote = text[at]
    characters: list[str] = []
    at += 1
    while at < len(text):
        if text[at] == quote:
            return "".join(characters), at + 1
        if text[at] == "\\" and at + 1 < len(text):
            escaped = text[at + 1]
            characters.append(escaped if escaped == quote else "\\" + escaped)
            at += 2
        else:
            characters.append(text[at])
            at += 1
    raise ValueError(f"line {line}: the quote {quote} is not closed")


def _unescape(match: re.Match[str]) -> str:
    escape = match[0][1:]
    if escape == "$":
        return "$$"
    if escape.startswith("0"):
        octal = escape[1:]
        valid = len(octal) == 3 and octal.isdigit() and max(octal) < "8" and int(octal, 8) < 256
        return chr(int(octal, 8)) if valid else "\\" + octal
    return _ESCAPED.get(escape, match[0])


def substitute(text: str, lookup: Lookup, line: int = 1) -> str:
    """Replace `$NAME` and `${NAME…}` in `text`. Raise ValueError for anything that compose refuses, too."""
    parts, at = [], 0
    while (match := _VARIABLE.search(text, at)) is not None:
        parts.append(text[at : match.start()])
        at = match.end()
        if match["escaped"]:
            parts.append("$")
        elif match["named"]:
            parts.append(lookup(match["named"]) or "")
        else:
            end = _closing(text, at)
            braced = _BRACED.fullmatch(text, at, end) if end >= 0 else None
            if braced is None:
                raise ValueError(f"line {line}: invalid ${{…}} (write $$ for a dollar sign, or use single quotes)")
            parts.append(_braced(braced[1], braced[2] or "", braced[3] or "", lookup, line))
            at = end + 1
    return "".join([*parts, text[at:]])


def _closing(text: str, at: int) -> int:
    """Return the position of the brace that closes the one before `at`, or -1."""
    depth = 1
    for here in range(at, len(text)):
        depth += (text[here] == "{") - (text[here] == "}")
        if not depth:
            return here
    return -1


def _braced(name: str, operator: str, other: str, lookup: Lookup, line: int) -> str:
    value = lookup(name)
    present = value is not None and (value != "" or not operator.startswith(":"))
    kind = operator[-1:]
    if kind == "+":
        return substitute(other, lookup, line) if present else value or ""
    if present or not kind:
        return value or ""
    if kind == "-":
        return substitute(other, lookup, line)
    raise ValueError(f"line {line}: {name} is required, and not set")


def main(argv: Sequence[str]) -> int:
    """Replace this process by a command with the variables of some files. Return only if that fails."""
    files, dashes, command = list(argv), "--" in argv, []
    if dashes:
        at = files.index("--")
        files, command = files[:at], files[at + 1 :]
    if not command:
        print_escaped(f"usage: python -m {__spec__.name} FILE... -- COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    try:
        values = read([Path(file) for file in files], os.environ)
        os.execvpe(command[0], command, {**values, **os.environ})
    except ConfigurationError as error:
        print_escaped(error.format(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print_escaped(
            f"error: cannot run {command[0]}: {error.strerror}", "  next step: check the path", file=sys.stderr
        )
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
