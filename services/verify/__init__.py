"""verify: follows the chain from the archive to the store, hash by hash, and names the first break."""
