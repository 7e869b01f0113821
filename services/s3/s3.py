"""The s3 stage: run one of its tasks."""

from __future__ import annotations

import os

from larder.errors import ConfigurationError
from larder.next_step import StageRun
from larder.progress import Reporter
from larder.stage import StageOutcome
from services.s3.bucket import make_bucket
from services.s3.diagnosis import diagnose
from services.s3.server import down, up
from services.s3.settings import S3Settings


def s3(settings: S3Settings, reporter: Reporter) -> StageOutcome:
    """Run the task that `settings.task` names."""
    tasks = {"check": diagnose, "bucket": ensure_bucket, "up": up, "down": down}
    return tasks[settings.task](settings, reporter)


def ensure_bucket(settings: S3Settings, _: Reporter) -> StageOutcome:
    """Create the bucket unless it exists."""
    if not settings.bucket:
        raise ConfigurationError(
            "S3_BUCKET is not set: there is no name for the bucket",
            next_step=f"set S3_BUCKET, or run {StageRun('s3', 'bucket').with_settings(S3_BUCKET='my-bucket')}",
        )
    made = make_bucket(settings)
    state = "made" if made else "already there"
    where = settings.s3_endpoint_url or "AWS"
    is_set = settings.bucket in (os.environ.get("S3_BUCKET"), os.environ.get("RCLONE_CONTAINER"))
    check = StageRun("s3", "check").with_settings(S3_BUCKET="" if is_set else settings.bucket)
    return StageOutcome(f"the bucket {settings.bucket} at {where}: {state}", str(check), {"made": made})
