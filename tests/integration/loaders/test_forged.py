"""Readers of a store with a bucket that an attacker can write to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.loaders.conftest import Stored

ROOT = Path(__file__).resolve().parents[3]
MAX_MIB = 300


def run(stored: Stored, tmp_path: Path, how_many: str) -> list[dict[str, Any]]:
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ = known | stored.env | {"FOOD11_SPLIT": "validation"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.integration.loaders.forged",
            str(tmp_path / "mark"),
            json.dumps(stored.uris),
            how_many,
        ],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Traceback" not in done.stderr, done.stderr[-5000:]
    ended: list[dict[str, Any]] = json.loads(done.stdout)
    return ended


def test_forged_artifacts(stored: Stored, tmp_path: Path) -> None:
    ended = run(stored, tmp_path, "all" if os.environ.get("REQUIRE") == "all" else "some")
    assert not [one for one in ended if one["ran"]], "code of the bucket was run"
    assert not [one for one in ended if one["result"].startswith("NOT OURS")]
    assert not [one for one in ended if one["MiB"] > MAX_MIB]
    sound = [one for one in ended if one["attack"].endswith(": nothing")]
    assert {one["reader"] for one in sound} == {"larder", "webdataset", "chunks", "objects", "notebook", "verify"}
    assert all(one["result"] == "read" for one in sound), sound
    formless = [one for one in ended if "index, " in one["attack"] or "says so" in one["attack"]]
    formless = [one for one in formless if one["reader"] != "notebook"]  # which knows no chunks but the index's
    assert all("LitData" in one["result"] or "too long" in one["result"] for one in formless), formless
    assert any("(config.data_format.0: must be 'bytes')" in one["result"] for one in formless)
