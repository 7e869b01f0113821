"""shard: pack the tree's images into WebDataset tar shards."""
