"""The table of the lab's steps in provision/README.md: each row names a command of provision and a test that exists."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

import pytest

from provision.__main__ import parser

ROOT = Path(__file__).resolve().parents[3]
HEAD = "| step of the lab | command | test, in `tests/openstack/` |"


def rows() -> list[list[str]]:
    """The cells of the table's rows."""
    table = (ROOT / "provision/README.md").read_text().split(HEAD)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().split("\n")[1:]]


def commands(of: argparse.ArgumentParser) -> set[str]:
    """The commands of a parser, with those below them: {"up", "volume", "volume create", …}."""
    found = set()
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found |= {name, *(f"{name} {rest}" for rest in commands(below))}
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: str(row[0]))
def test_each_step_has_a_command_and_a_test(row: list[str]) -> None:
    _, command, test = row
    typed = re.findall("`([^`]+)`", command)
    words = [text.split(" --")[0] for text in typed if not text.startswith("python3 -m larder ")]
    known = commands(parser()) | {"node_type"}
    assert set(words) <= known and (words or command == "the same command"), command
    (named,) = re.findall("`([^`]+)`", test)
    file, _, function = named.partition("::")
    tree = ast.parse((ROOT / "tests/openstack" / file).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert any(name.startswith("test_") for name in tests) and (not function or function in tests), named


def test_the_table_has_the_whole_lab() -> None:
    steps = " ".join(row[0] for row in rows())
    for word in ("lease", "server", "floating IP", "security group", "Docker", "bucket", "keys", "rclone", "volume"):
        assert word in steps
    for word in ("format", "mount", "Jupyter", "persisted.txt", "delete the server", "delete the volume"):
        assert word in steps
