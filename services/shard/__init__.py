"""shard: packs the tree's images as WebDataset tar shards."""
