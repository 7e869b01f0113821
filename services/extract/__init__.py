"""extract: fetch a dataset from its source and unpack it into the volume's `raw/`."""
