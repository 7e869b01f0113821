"""s3: start, check and stop an S3 store, and create its bucket."""
