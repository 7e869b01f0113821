"""verify: follows every sample back along the chain, hash by hash, and names the first break."""
