"""`python -m services.verify`."""

import sys

from larder.stage import main
from services.verify.settings import VerifySettings
from services.verify.verify import verify

ABOUT = (
    "Follow the chain from the archive to the files, the shards and the objects in the store, for all samples or some "
    "of them, and name the first break."
)

if __name__ == "__main__":
    sys.exit(main("verify", VerifySettings, verify, ABOUT))
