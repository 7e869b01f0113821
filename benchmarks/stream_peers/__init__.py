"""The contestants of `stream_speed`: one module for each loader, a plain loop as its documentation runs it.

A module with a file of requirements beside it (`mosaicml.txt` of `mosaicml.py`) runs in a virtual environment of its
own (`environments.py`), since some loaders pin old dependencies; the others run in larder's.
"""
