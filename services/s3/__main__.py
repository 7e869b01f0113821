"""`python -m services.s3`."""

import sys

from services.commands import main
from services.s3.s3 import s3
from services.s3.settings import S3Settings

ABOUT = "Diagnose an S3 store, make the bucket, or start and stop the embedded store."

if __name__ == "__main__":
    sys.exit(main("s3", S3Settings, s3, ABOUT))
