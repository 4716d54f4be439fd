"""Numbers as a page shows them, and ways into a document that may lack any part."""

import re
from collections.abc import Mapping
from typing import Any

Facts = list[tuple[str, str]]

NONE = "–"  # noqa: RUF001  (an en dash, as tables have it)
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def at(document: Any, path: str) -> Any:
    """What lies under a dotted path; None where any part of the way is missing, as it may be in an older document."""
    for key in path.split("."):
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def rows(document: Any, path: str) -> list[Mapping[str, Any]]:
    """A list of objects under a path; empty where there is none."""
    found = at(document, path)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def is_number(value: Any) -> bool:
    """Whether it can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def percent(value: Any) -> str:
    """A share of 1."""
    return f"{100 * value:.1f} %" if is_number(value) else NONE


def points(value: Any) -> str:
    """A difference of two shares, in percentage points, always with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}") if is_number(value) else NONE


def span(low: Any, high: Any, signed: bool = False) -> str:
    """An interval of shares; empty where there is none."""
    if not (is_number(low) and is_number(high)):
        return ""
    if signed:
        return f"{points(low)} to {points(high)}"
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def number(value: Any, digits: int = 3) -> str:
    """A plain number, short; counts without a fraction."""
    if not is_number(value):
        return NONE
    if isinstance(value, int):
        return count(value)
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def fixed(value: Any, places: int = 3) -> str:
    """A number with as many places as its neighbours."""
    return f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}") if is_number(value) else NONE


def count(value: Any) -> str:
    """A whole number, in groups of three."""
    return f"{value:,.0f}".replace(",", "\N{THIN SPACE}") if is_number(value) else NONE


def seconds(value: Any) -> str:
    """A time."""
    if not is_number(value):
        return NONE
    return f"{value / 60:.1f} min" if value >= 120 else f"{value:.1f} s"


def size(value: Any) -> str:
    """Bytes."""
    if not is_number(value):
        return NONE
    unit, name = next(((unit, name) for unit, name in UNITS if value >= unit), (1, "bytes"))
    return f"{value / unit:.3g} {name}"


def short(text: Any, most: int) -> str:
    """Cut in the middle, where names of one dataset are most alike; the whole name belongs into a title."""
    told = str(text)
    if len(told) <= most:
        return told
    tail = (most - 1) // 3
    return f"{told[: most - 1 - tail]}…{told[len(told) - tail :]}"


def facts(pairs: list[tuple[str, Any, Any]]) -> Facts:
    """Name and text of what is there, from name, value and how it is shown."""
    return [(name, form(value)) for name, value, form in pairs if value is not None]


def because(reason: Any) -> str:
    """A reason as it follows "not computed": it may begin with these words itself, or end a sentence."""
    return re.sub("^not computed(?: yet:|:| for this recipe;) ", "", str(reason)).rstrip(".")
