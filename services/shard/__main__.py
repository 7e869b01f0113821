"""`python -m services.shard`."""

import sys

from services.commands import main
from services.shard.settings import ShardSettings
from services.shard.shard import shard

ABOUT = "Pack the tree's images as WebDataset tar shards: on the volume, or straight into an S3 store."

if __name__ == "__main__":
    sys.exit(main("shard", ShardSettings, shard, ABOUT))
