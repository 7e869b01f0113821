"""A stand-in for Docker's client: it answers from a table, and records the requests."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


class Engine:
    """A folder for the PATH with a stand-in for `docker`. Calls without an answer succeed silently.

    It is a script of `sh`, which starts a hundred times as fast as Python.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self._calls = folder / "bin", folder / "calls"
        self._table: list[str] = []
        self.bin.mkdir(parents=True)
        for program in ("rm", "rmdir", "git"):
            target = shutil.which(program)
            assert target
            (self.bin / program).symlink_to(target)
        self.answer("version", text="28.0.0\n")
        self.answer("compose", "version", text="2.40.0\n")

    def answer(self, *start: str, text: str = "", having: str = "", code: int = 0) -> None:
        """Set the answer to calls that begin with some words and contain a text."""
        pattern = f"{shlex.quote(' '.join(start))}*" + (f"{shlex.quote(having)}*" if having else "")
        self._table.insert(0, f"{pattern}) printf %s {shlex.quote(text)}; exit {code} ;;")
        note = f"{{ printf '%s\\0' \"$@\"; printf '\\1'; }} >> {shlex.quote(str(self._calls))}"
        docker = self.bin / "docker"
        docker.write_text("\n".join(["#!/bin/sh", note, 'case "$*" in', *self._table, "esac", ""]))
        docker.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """Return Docker's calls so far."""
        notes = self._calls.read_text() if self._calls.exists() else ""
        return [call.split("\0")[:-1] for call in notes.split("\1")[:-1]]


class Machine:
    """A checkout on a simulated machine, with an engine and a user's home."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home, self.engine = folder / "my checkout", folder / "home", Engine(folder / "engine")
        shutil.copytree(ROOT / "larder", self.root / "larder", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "pyproject.toml", self.root)  # the version
        shutil.copytree(ROOT / "compose", self.root / "compose", symlinks=True)
        (self.root / "services").mkdir()

    def larder(self, *words: str, stdin: str = "", path: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command in the checkout."""
        environ = {"PATH": path or str(self.engine.bin), "HOME": str(self.home), **environ}
        return subprocess.run(
            [sys.executable, "-m", "larder", *words],
            cwd=self.root,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            timeout=60,
        )

    def written(self) -> set[str]:
        """Return the files of the checkout and of the user's home, without Python's caches."""
        return {
            str(path)
            for folder in (self.root, self.home)
            for path in folder.rglob("*")
            if "__pycache__" not in path.parts
        }


def put_artifact(folder: Path, name: str, kind: str, made_from: str = "", **fields: object) -> str:
    """Write the manifest of an artifact, and return its digest."""
    manifest = {
        "version": 1,
        "artifact": kind,
        "dataset": "Food-11",
        "classes": [],
        "input": {"manifest": made_from},
        "splits": {"training": {"samples": 3, "bytes": 3000, "samples_per_class": [3]}},
        "files": 3,
        "bytes": 3_000_000,
        "settings": {},
        "index": {"bytes": 1, "sha256": "0"},
        **fields,
    }
    text = json.dumps(manifest).encode()
    (folder / name / "_larder").mkdir(parents=True)
    (folder / name / "_larder" / "manifest.json").write_bytes(text)
    return hashlib.sha256(text).hexdigest()
