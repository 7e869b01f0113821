"""The stage: one of its tasks."""

from __future__ import annotations

from larder.errors import ConfigurationError
from larder.next_step import Run
from larder.progress import Reporter
from larder.stage import Outcome
from services.s3.bucket import make_bucket
from services.s3.check import check
from services.s3.server import down, up
from services.s3.settings import S3Settings


def s3(settings: S3Settings, reporter: Reporter) -> Outcome:
    """Do what `settings.task` says."""
    tasks = {"check": check, "bucket": bucket, "up": up, "down": down}
    return tasks[settings.task](settings, reporter)


def bucket(settings: S3Settings, _: Reporter) -> Outcome:
    """Make the bucket unless it is there."""
    if not settings.bucket:
        raise ConfigurationError("S3_BUCKET is not set: there is no name for the bucket", next_step="set S3_BUCKET")
    made = make_bucket(settings)
    state = "made" if made else "already there"
    where = settings.s3_endpoint_url or "AWS"
    return Outcome(f"the bucket {settings.bucket} at {where}: {state}", str(Run("s3", "check")), {"made": made})
