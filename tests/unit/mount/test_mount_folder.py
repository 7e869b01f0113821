"""Who serves a mount, and whether it still does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from services.mount.mount_folder import MountFolder

SERVER = "import time; print(flush=True); time.sleep(60)"


def test_a_server_that_was_killed_has_ended(tmp_path: Path) -> None:
    """A mount that it leaves answers for a moment; nobody may count on it."""
    folder = MountFolder(tmp_path)
    assert not folder.has_server_ended(), "none is recorded"
    command = [sys.executable, "-c", SERVER, "services.mount"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        folder.record_server("bucket", {})
        record = json.loads((tmp_path / ".mount.json").read_text())
        (tmp_path / ".mount.json").write_text(json.dumps(record | {"pid": process.pid}))
        assert not folder.has_server_ended()
        process.kill()
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
            time.sleep(0.01)
        assert folder.has_server_ended(), "even if nobody has waited for it"
    assert folder.has_server_ended()
    (tmp_path / ".mount.json").write_text(json.dumps(record | {"pid": process.pid, "pids": "pid:[1]"}))
    assert not folder.has_server_ended(), "another container's process can't be seen"
