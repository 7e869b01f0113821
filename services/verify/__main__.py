"""`python -m services.verify`."""

import sys

from services.commands import main
from services.verify.settings import VerifySettings
from services.verify.verify import verify

ABOUT = "Follow the chain, archive to file to shard member to object in the store, and name the first break."

if __name__ == "__main__":
    sys.exit(main("verify", VerifySettings, verify, ABOUT))
