"""What bench's user can do about an error: the stages and settings that help."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.rclone_metrics import METRICS
from larder.bench.rclone_mount import MOUNT, STORE
from larder.bench.wording import in_settings, steps_with
from larder.errors import TREE_ANEW, ConfigurationError
from larder.loaders.failures import explained
from larder.loaders.remedies import AGAIN, FEWER_READERS, RENEW, SHARED_MEMORY
from larder.next_step import MAKES, Run
from services.bench.settings import BenchSettings

_CHECK = Run("s3", "check")
_STEPS = {
    AGAIN: f"run the same command again; {_CHECK} looks closer",
    FEWER_READERS: f"run again with fewer readers (LARDER_WORKERS), or look closer: {_CHECK}",
    SHARED_MEMORY: "set LARDER_SHM_SIZE higher (8gb is the default), then start the container again, or set "
    "LARDER_WORKERS or LARDER_BATCH_SIZE lower",
    MOUNT: f"run {Run('mount')}, which also clears a dead mount away",
    METRICS: f"mount with {Run('mount')}, whose rclone has a socket there that user {os.getuid()} may write; clear "
    f"another mount away with {Run('mount', 'unmount')}",
    STORE: f"{_CHECK} looks at the store; {MAKES['objects']} puts back what was deleted from it",
}


@contextmanager
def helpful(made_by: str) -> Iterator[None]:
    """A block that reads what `made_by` makes (larder.next_step.MAKES): its errors name it, and bench's settings."""
    steps = _STEPS | steps_with(made_by)
    if made_by == MAKES["tree"]:
        steps[RENEW] = TREE_ANEW
    # The number of workers is what is measured: more than cores is a choice, and it is in the record.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    with in_settings(BenchSettings, steps), explained():
        yield


def require_bucket(settings: BenchSettings) -> None:
    """Raise ConfigurationError without a bucket: only some arms need it."""
    if not settings.bucket:
        raise ConfigurationError(
            f"S3_BUCKET is not set (nor --bucket), and {settings.arm} reads from a bucket",
            next_step=f"set S3_BUCKET, or RCLONE_CONTAINER, to the bucket that {MAKES['objects']} loaded",
        )
