"""Run each arm's jobs with the Python that has its packages: this one, or that of an environment of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from larder.bench import peer_environments
from larder.bench.arms import ARMS, is_elsewhere, prepare_command
from larder.bench.comparison.processes import A, JobFailure, JobRunner
from larder.bench.comparison.work import Job
from larder.bench.summarize import AGAIN
from larder.errors import LarderError


class PeerRunner(JobRunner):
    """A JobRunner that starts another one for each environment, when the first job for it comes.

    Args:
        folder: Folder for results and logs.
        limit_seconds: Time limit of a job.
        modules: Modules that are imported before the first job; one that is missing is skipped.
    """

    def __init__(self, folder: Path, limit_seconds: float, modules: Sequence[str] = ()) -> None:
        super().__init__(folder, limit_seconds, modules)
        self._others: dict[str, JobRunner] = {}

    def __exit__(self, *exception: object) -> None:
        for runner in self._others.values():
            runner.__exit__(*exception)
        super().__exit__(*exception)

    def run(
        self,
        function: Callable[[A], dict[str, Any]],
        argument: A,
        name: str,
        deadline: float = math.inf,
        watch: Callable[[], None] | None = None,
    ) -> dict[str, Any] | JobFailure:
        """Run a job, and return its result or why there is none. See JobRunner.

        If an environment's Python doesn't run, only its arm fails.
        """
        arm = _arm_of(argument) if isinstance(argument, Job) else ""
        environment = ARMS[arm].environment if arm in ARMS and is_elsewhere(arm) else ""
        if not environment:
            return super().run(function, argument, name, deadline, watch)
        if environment not in self._others:
            python = peer_environments.python_of(environment)
            self._others[environment] = JobRunner(self._folder, self._limit, self._modules, python)
        try:
            return self._others[environment].run(function, argument, name, deadline, watch)
        except (LarderError, OSError) as error:
            reason = error.what if isinstance(error, LarderError) else error.strerror
            message = f"{peer_environments.folder_of(environment)} doesn't run: {reason}"
            return JobFailure("error", message, prepare_command(arm))


def _arm_of(job: Job) -> str:
    """Return the arm that a job measures; empty for another job."""
    return job.run.entry.name.removesuffix(AGAIN) if job.run and job.kind == "arm" else ""
