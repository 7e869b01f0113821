"""index: check, hash and index a source in a store without copying it."""
