"""The command with stand-ins for the programs that it runs: they record arguments and environment as bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from larder.cli.virtualenv import torch_pins

ROOT = Path(__file__).parents[3]
NOTES = """#!{python} -ISs
import json, os, sys, time
here = {folder!r}
call = {{"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()}}
with open(here + "/calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
for answer in json.load(open(here + "/answers")):
    words = answer["words"]
    if any(sys.argv[at : at + len(words)] == words for at in range(1, len(sys.argv))):
        sys.stdout.write(answer["out"])
        sys.stderr.write(answer["err"])
        sys.stdout.flush()
        time.sleep(answer["seconds"])
        sys.exit(answer["code"])
"""


class Ended(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str
    calls: list[dict[str, Any]]
    """The stand-ins' notes: argv, env, cwd, pid."""

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The calls that start a stage or a server, or build an image."""
        return [
            call
            for call in self.calls
            if ("compose" in call["argv"][1:2] and "version" not in call["argv"]) or call["argv"][0].endswith("python")
        ]


class FrontDoor:
    """A checkout, and a machine on which `docker` and `.venv/bin/python` are stand-ins."""

    def __init__(self, root: Path, machine: Path) -> None:
        self.root, self.machine, self.bin = root, machine, machine / "bin"
        self.bin.mkdir(parents=True)
        (machine / "home").mkdir()
        (root / ".venv" / "bin").mkdir(parents=True)
        self.answers: list[dict[str, Any]] = []
        self.answer("version", out="28.0.0\n")
        for program in (self.bin / "docker", root / ".venv" / "bin" / "python"):
            program.write_text(NOTES.format(python=sys.executable, folder=str(machine)))
            program.chmod(0o755)
        (root / ".venv" / "installed").mkdir()
        for name, digest in (("dev", digest_of(root / "uv.lock")), ("torch", digest_of_torch(root))):
            (root / ".venv" / "installed" / name).write_text(digest)
        for name in ("python3", "make", "env", "mkdir", "rm", "sh", "bash", "chown", "cat"):
            target = sys.executable if name == "python3" else shutil.which(name)
            if target:
                (self.bin / name).symlink_to(target)

    def answer(self, *words: str, out: str = "", err: str = "", code: int = 0, seconds: float = 0.0) -> None:
        """Set the stand-ins' answer to calls that contain these words in this order."""
        new = {"words": list(words), "out": out, "err": err, "code": code, "seconds": seconds}
        self.answers.insert(0, new)
        (self.machine / "answers").write_text(json.dumps(self.answers))

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a user of this machine."""
        return {"PATH": str(self.bin), "HOME": str(self.machine / "home"), "LARDER_UID": "1000", "LARDER_GID": "1000"}

    @property
    def command(self) -> tuple[str, ...]:
        """The command `larder` in a checkout."""
        return (str(self.bin / "python3"), "-m", "larder")

    def calls(self) -> list[dict[str, Any]]:
        """Return the recorded calls."""
        notes = self.machine / "calls"
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def run(
        self,
        *words: str,
        through: Sequence[str] = (),
        stdin: str | None = None,
        cwd: Path | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        **variables: str,
    ) -> Ended:
        """Run `larder` with arguments, or another program; environment variables as `environ` or by keyword."""
        (self.machine / "calls").unlink(missing_ok=True)
        ended = subprocess.run(
            [*(through or self.command), *words],
            cwd=cwd or self.root,
            env={**self.environ, **environ, **variables},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=120,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr, self.calls())

    def start(self, *words: str, through: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """Start `larder` with arguments, and leave it running."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*through, *self.command, *words], cwd=self.root, env=self.environ, **{**pipes, **options}
        )


def digest_of(lock: Path) -> str:
    """Return the record that everything in a lock is installed."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def digest_of_torch(root: Path) -> str:
    """Return the record that torch is installed."""
    return hashlib.sha256(" ".join(torch_pins(root)).encode()).hexdigest()


def copy_front_door(root: Path) -> Path:
    """Copy what `larder` consists of, without the stages."""
    shutil.copytree(ROOT / "larder" / "cli", root / "larder" / "cli")
    shutil.copytree(ROOT / "larder" / "distant", root / "larder" / "distant")
    for file in (ROOT / "larder").glob("*.py"):
        shutil.copy2(file, root / "larder")
    shutil.copytree(ROOT / "compose", root / "compose", symlinks=True)
    (root / "services").mkdir()
    (root / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks" / "names.py", root / "benchmarks")
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, root)
    return root


@pytest.fixture
def door(tmp_path: Path) -> FrontDoor:
    """A machine with a checkout."""
    return FrontDoor(copy_front_door(tmp_path / "larder"), tmp_path / "machine")


@pytest.fixture
def awkward_door(tmp_path: Path) -> FrontDoor:
    """A machine with a checkout in a folder whose name shells and make must quote."""
    return FrontDoor(copy_front_door(tmp_path / 'it\'s "my" $HOME copy' / "larder"), tmp_path / "machine")
