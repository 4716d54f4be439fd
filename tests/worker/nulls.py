"""What of a report is null without a reason: docs/report.md promises one for each."""

from collections.abc import Iterator, Mapping
from typing import Any

# Null says that there is nothing to say.
SILENT = ("optimism", "unknown")


def unexplained(report: Mapping[str, Any]) -> list[str]:
    """Dotted paths of nulls that nothing explains, neither an entry of their own nor one of what they are in."""
    return [".".join(path) for path in _nulls(report, ()) if not _is_told(report, path)]


def _nulls(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Of objects: what stands in lists are rows of a table, whose empty cells are explained with it."""
    if value is None:
        yield path
    elif isinstance(value, Mapping):
        for name, inside in value.items():
            yield from _nulls(inside, (*path, name))


def _is_told(report: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    if path[0] == "verdict_evidence":
        return path[-1] in SILENT or _is_told(report, ("verdicts", *path[1:]))
    # What a method tells of itself is its own.
    if path[0] == "details" or path[-1] in SILENT or path[-1].endswith("_skipped"):
        return True
    return any(
        ".".join((*above, name)) in report["not_computed"] or _stands_by(report, above, name)
        for above, name in ((path[:end], path[end]) for end in range(len(path)))
    )


def _stands_by(report: Mapping[str, Any], above: tuple[str, ...], name: str) -> bool:
    """Whether the reason stands by the value: as `NAME_skipped`, in `reasons`, or in `ABOVE_skipped` under its name."""
    outer, place = None, report
    for one in above:
        outer, place = place, place[one]
    skipped = outer.get(f"{above[-1]}_skipped") if outer is not None else None
    own = (
        place.get(f"{name}_skipped"),
        place.get("reasons", {}).get(name),
        isinstance(skipped, Mapping) and skipped.get(name),
    )
    return any(isinstance(reason, str) for reason in own)
