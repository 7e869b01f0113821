"""`python -m services.shard`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.shard.settings import ShardSettings

ABOUT = "Pack the tree's images as WebDataset tar shards: on the volume, or straight into an S3 store."


def run(settings: ShardSettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.shard.shard import shard

    return shard(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("shard", ShardSettings, run, ABOUT))
