"""load: upload a finished artifact to an S3 store, verify it there and write its manifest."""
