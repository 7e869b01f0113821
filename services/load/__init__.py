"""load: puts a finished artifact into an S3 store, verifies it there, and leaves a manifest beside it."""
