"""Variables of make arrive as typed, whatever flags make itself gets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from larder.cli.makeflags import parse_makeflags

GIVEN = {
    "BLANKS": "my photos  2",
    "TABS": "a\tb",
    "BACKSLASH": "a\\b\\ c",
    "TRAILING": "ends in \\",
    "DOLLAR": "$HOME $$ $(x)",
    "SHELL_FUNCTION": "$(shell echo executed)",
    "QUOTES": 'it\'s "x"',
    "NEWLINE": "one\ntwo -- THREE=3",
    "HASH": "a # b",
    "EQUALS": "a=b",
    "EMPTY": "",
    "PERCENT": "%s",
    "COLON": "a:b",
    "NOT_ASCII": "ä写",
    "DASHES": "-- --x",
    "BACKTICK": "`x`",
}
FLAGS = [
    (),
    ("-k",),
    ("-j4",),
    ("--no-print-directory",),
    ("-s", "-k"),
    ("-I", "/tmp"),
    ("-w",),
    ("--output-sync=line", "-j2"),
]


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_what_make_was_given(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@printenv MAKEFLAGS\n")
    words = [f"{name}={value}" for name, value in GIVEN.items()]
    stdout = subprocess.run(["make", *flags, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    lines = [line for line in stdout.splitlines(keepends=True) if not line.startswith("make: ")]
    assert parse_makeflags("".join(lines).removesuffix("\n")) == GIVEN


@pytest.mark.parametrize(
    ("makeflags", "expected"),
    [
        ("", {}),
        ("k", {}),
        (" --no-print-directory", {}),
        (" -j4 --jobserver-auth=3,4", {}),
        (" -- A=1", {"A": "1"}),
        ("ks -- B=2 A=1", {"A": "1", "B": "2"}),
        (" -- A:=1 B+=2 C?=3 D::=4", {"A": "1", "B": "2", "C": "3", "D": "4"}),
        (r" -- A=x\ y\\z$$", {"A": r"x y\z$"}),
        (" -- A=", {"A": ""}),
    ],
)
def test_its_formats(makeflags: str, expected: dict[str, str]) -> None:
    assert parse_makeflags(makeflags) == expected
