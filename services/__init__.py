"""The stages: each is run as `python -m services.<stage>`, none is imported by another."""
