"""Scores, intervals and verdicts: what the transfer report says about a model. Torch-free."""
