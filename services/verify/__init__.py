"""verify: follow every sample back along the chain, hash by hash, and report the first break."""
