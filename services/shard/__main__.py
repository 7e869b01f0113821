"""`python -m services.shard`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.shard.settings import ShardSettings

ABOUT = "Pack the tree's images as WebDataset tar shards: on the volume, or straight into an S3 store."


def run(settings: ShardSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.shard.shard import shard

    return shard(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("shard", ShardSettings, run, ABOUT))
