"""Finished models in memory: runtime and pool."""
