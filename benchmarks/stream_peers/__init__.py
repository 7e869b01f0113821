"""The contestants of `stream_speed` and `arms_at_their_best`: a module for each loader.

Each is a plain loop, as the loader's documentation runs it. Those of other libraries run where the arm of that library
runs: in larder's environment, or in one of their own.
"""
