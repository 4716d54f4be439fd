"""Fitted feature transforms: incoming features move to the space that a head was trained in. Torch-free."""
