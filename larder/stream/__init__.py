"""Read shards from a store straight into batches of pixels."""
