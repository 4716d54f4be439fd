"""Dotted paths of a transfer report, by which what is null and what is filled in later is named."""

from collections.abc import Collection, Mapping
from typing import Any

ABSENT = object()


def value_at(report: Mapping[str, Any], path: str, absent: Any = None) -> Any:
    """The value at a path, the whole report at an empty one; `absent` where there is none: within a null is nothing."""
    place: Any = report
    for name in filter(None, path.split(".")):
        if not isinstance(place, Mapping) or name not in place:
            return absent
        place = place[name]
    return place


def is_within(path: str, others: Collection[str]) -> bool:
    """Whether a path is one of the others, or of something that one of them holds."""
    return path in others or any(path.startswith(f"{other}.") for other in others)
