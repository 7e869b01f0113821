"""A checkout with a .venv in which stand-ins take down what would reach the network."""

from __future__ import annotations

from pathlib import Path

import pytest

LOCK = """\
[[package]]
name = "uv"
version = "0.13.9"
source = { registry = "." }
wheels = [
    { path = "uv-0.13.9-py3-none-any.whl", hash = "sha256:%s", size = 2 },
]
"""
PYPROJECT = '[dependency-groups]\ntorch = ["torch==2.14.1", "torchvision==0.29.1"]\n'
STAND_IN = r"""#!/bin/sh
here="${0%/*}" line="${0##*/}"
for word in "$@"; do case "$word" in *.txt) word=LIST ;; esac; line="$line $word"; done
printf '%s\n' "$line" >>"$here/calls"
case "$line" in *" export "*) echo tiny==1.2 ;; esac
while read -r part; do case "$line" in *"$part"*) exit 1 ;; esac; done <"$here/fails"
"""


class Checkout:
    """A checkout, and what was run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "uv.lock").write_text(LOCK % ("a" * 64))
        self.fails()
        for name in ("python", "uv"):
            stand_in = self.bin / name
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)

    def fails(self, *parts: str) -> None:
        """Let every call that has one of these in its words fail from now on."""
        (self.bin / "fails").write_text("".join(f"{part}\n" for part in parts))

    def calls(self) -> list[str]:
        """What has been run since the last look, but for the question whether pip is there."""
        path = self.bin / "calls"
        made = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [call for call in made if "--version" not in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in a path with a space."""
    return Checkout(tmp_path / "a checkout")
