"""Decide which files are samples, assign split and class, and validate images.

`recipes/` has one module per layout, and `recipes.auto` detects the layout. `source_summary` summarizes the source's
folders, `file_names` classifies file names, and `splits` parses LARDER_SPLITS and LARDER_SPLIT. `lists` and
`image_listing` read samples from a dataset's own lists. `check` validates an image. `left_out` and `summary` report
the result.
"""
