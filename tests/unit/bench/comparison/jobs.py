"""Jobs for the tests of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from larder.errors import ServiceError


def double(number: int) -> dict[str, Any]:
    print("a library talks")
    return {"number": 2 * number, "pid": os.getpid()}


def hang(file: Path) -> dict[str, Any]:
    """Write the process's id and that of a child, and beside them its parent's; never end."""
    file.with_name(f"{file.name}.parent").write_text(str(os.getppid()))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    file.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
    file.with_suffix(".new").rename(file)
    time.sleep(600)
    return {}


def hang_with_a_daemon(file: Path) -> dict[str, Any]:
    """Start a child in a session of its own, as Ray does, and never end."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    file.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
    file.with_suffix(".new").rename(file)
    time.sleep(600)
    return {}


def leave_child(file: Path) -> dict[str, Any]:
    """End, and leave a process behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    return {"child": child.pid}


def die(number: int) -> dict[str, Any]:
    os.kill(os.getpid(), number)
    return {}


def fail(message: str) -> dict[str, Any]:
    raise ServiceError(message, next_step="try again")


def raise_unknown(message: str) -> dict[str, Any]:
    raise ValueError(message)


def leave(code: int) -> dict[str, Any]:
    print("out of handles", file=sys.stderr, flush=True)
    os._exit(code)


KILL = signal.SIGKILL.value


def tell_python(_: object) -> dict[str, Any]:
    return {"python": os.environ.get("TEST_PYTHON_OF", "ours"), "path": os.environ.get("PYTHONPATH", "")}


def tell_parent(_: object) -> dict[str, Any]:
    return {"parent": os.getppid()}
