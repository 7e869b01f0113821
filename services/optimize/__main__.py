"""`python -m services.optimize`."""
