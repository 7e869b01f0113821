"""Next steps for errors of arms: the stages and settings that help."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.rclone_metrics import SERVE_METRICS
from larder.bench.rclone_mount import CHECK_STORE, REMOUNT
from larder.bench.settings import LoaderSettings
from larder.bench.wording import name_settings_in_errors, next_steps_for
from larder.errors import REMAKE_TREE, ConfigurationError
from larder.loaders.failures import map_worker_errors
from larder.loaders.hints import CREATE_AGAIN, RAISE_SHARED_MEMORY, RUN_AGAIN, USE_FEWER_READERS
from larder.next_step import CREATED_BY, StageRun
from larder.store import SET_STORE

_CHECK = StageRun("s3", "check")
_STEPS = {
    RUN_AGAIN: f"run the same command again; {_CHECK} diagnoses the store",
    USE_FEWER_READERS: f"run again with fewer readers (LARDER_WORKERS), or diagnose the store: {_CHECK}",
    RAISE_SHARED_MEMORY: "set LARDER_SHM_SIZE higher (8gb is the default), then start the container again, or set "
    "LARDER_WORKERS or LARDER_BATCH_SIZE lower",
    REMOUNT: f"run {StageRun('mount')}, which also removes a dead mount",
    SERVE_METRICS: f"mount with {StageRun('mount')}, whose rclone has a socket there that user {os.getuid()} may "
    f"write; remove another mount with {StageRun('mount', 'unmount')}",
    CHECK_STORE: f"{_CHECK} diagnoses the store; {CREATED_BY['objects']} restores what was deleted from it",
}


@contextmanager
def map_arm_errors(kind: type[LoaderSettings], made_by: str) -> Iterator[None]:
    """Make errors in the block name settings of `kind`, and `made_by`, the stage that made the artifact."""
    steps = _STEPS | next_steps_for(made_by)
    if made_by == CREATED_BY["tree"]:
        steps[CREATE_AGAIN] = REMAKE_TREE
    # torch warns about more workers than cores. Here that is a deliberate setting, and the record has it.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with name_settings_in_errors(kind, steps), map_worker_errors():
        yield


def require_bucket(settings: LoaderSettings, arm: str) -> None:
    """Raise ConfigurationError if no bucket is set. Only some arms need one."""
    if not settings.bucket:
        raise ConfigurationError(
            f"S3_BUCKET is not set (nor --bucket), and {arm} reads from a bucket",
            next_step=SET_STORE,
        )
