"""What bench's user can do about an error: the commands and settings that help."""

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
from services.bench.settings import BenchSettings

ETL_LOCAL, ETL_LOAD = "make etl-local", "make etl-load"
_STEPS = {
    AGAIN: "run the same command again; `make s3-check` looks closer",
    FEWER_READERS: "run again with fewer readers (LARDER_WORKERS), or look closer: `make s3-check`",
    SHARED_MEMORY: "set LARDER_SHM_SIZE higher (8gb is the default), then `make jupyter` or `make bench` again, or set "
    "LARDER_WORKERS or LARDER_BATCH_SIZE lower",
    MOUNT: "run `make mount`, which also clears a dead mount away",
    METRICS: f"mount with `make mount`, whose rclone has a socket there that user {os.getuid()} may write; clear "
    "another mount away with `make unmount`",
    STORE: f"`make s3-check` looks at the store; `{ETL_LOAD}` puts back what was deleted from it",
}


@contextmanager
def helpful(made_by: str) -> Iterator[None]:
    """A block that reads what the command `made_by` makes: its errors name bench's settings, and the command."""
    steps = _STEPS | steps_with(made_by)
    if made_by == ETL_LOCAL:
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
            next_step=f"set S3_BUCKET, or RCLONE_CONTAINER, to the bucket that `{ETL_LOAD}` loaded",
        )
