"""Fuzzing by hand: `python -m tests.fuzz zip --seconds 600`. Each target is a module; `__main__` has their table."""
