"""Import modules, and fork a process for each job: `python -m larder.bench.comparison.template MODULE...`.

A fork starts in milliseconds with all libraries imported, and shares no threads, connections or workers with other
rounds. Requests are pickled on stdin; answers are lines of JSON on stdout.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from larder.errors import LarderError
from larder.machine import set_parent_death_signal


class Request(NamedTuple):
    """A job, and the files for its result and its output."""

    function: Callable[[Any], dict[str, Any]]
    """Does the job, and returns its result as JSON types."""
    argument: Any
    result: Path
    log: Path


def main() -> None:
    """Serve requests until stdin ends."""
    set_parent_death_signal()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    for name in sys.argv[1:]:
        with suppress(ImportError):  # an arm that needs it is left out
            importlib.import_module(name)
    if threading.active_count() != 1:
        raise RuntimeError("a library has started a thread, which forks would lack")
    gc.freeze()
    _answer(answers, ready=True)
    while True:
        try:
            request: Request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            answers.close()
            _run(request)
        _answer(answers, pid=child)
        _answer(answers, exit=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _answer(answers: Any, **fields: Any) -> None:
    answers.write(json.dumps(fields) + "\n")
    answers.flush()


def _run(request: Request) -> NoReturn:
    """Do a job in a session of its own, so that it can be ended with all its workers."""
    code = 1
    try:
        os.setsid()
        set_parent_death_signal(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with open(os.devnull) as nothing, request.log.open("w") as log:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        try:
            result = request.function(request.argument)
        except LarderError as error:
            result = {"error": f"{error.what}", "next_step": error.next_step}
        except Exception as error:  # an arm's library may raise anything; the other arms go on
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}", "next_step": ""}
        temporary = request.result.with_suffix(".new")
        temporary.write_text(json.dumps(result), encoding="utf-8")
        temporary.rename(request.result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # don't wait for threads of libraries


if __name__ == "__main__":
    main()
