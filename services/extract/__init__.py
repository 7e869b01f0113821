"""extract: brings a dataset from its source into the data volume, as `raw/`."""
