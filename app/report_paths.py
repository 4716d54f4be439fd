"""Dotted paths of a transfer report, by which what is null and what is filled in later is named."""

from collections.abc import Collection


def is_within(path: str, others: Collection[str]) -> bool:
    """Whether a path is one of the others, or of something that one of them holds."""
    return path in others or any(path.startswith(f"{other}.") for other in others)
