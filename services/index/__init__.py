"""index: checks, hashes and indexes a source that lies in a store, where it lies."""
