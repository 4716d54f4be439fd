"""Tables of measured results for docs/methods.md, from what `make eval` has written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "evaluation.json"

Row = dict[str, Any]


def of(method: str) -> list[str]:
    """The lines of a method's measured results; none where it has none."""
    parts: dict[str, Any] = json.loads(RESULTS.read_text())["parts"] if RESULTS.is_file() else {}
    tables = [table(parts[part]["rows"]) for part, table in TABLES.get(method, ()) if part in parts]
    return [line for lines in tables for line in [*lines, ""]]


def _chosen(rows: list[Row]) -> list[str]:
    shown = [
        [
            row["set"],
            *(_bounded(row["methods"][name]) for name in row["methods"]),
            _bounded(row["auto"]),
            _bounded(row["regret"], sign=True),
            ", ".join(f"{what} {number}" for what, number in sorted(row["chosen"].items())),
            _served(row),
        ]
        for row in rows
        if "methods" in row
    ]
    methods = list(next(row["methods"] for row in rows if "methods" in row)) if shown else []
    blank = [""] * len(methods)
    shown += [
        [f"all {row['num_sets']}", *blank, "", _bounded(row["regret"], sign=True), "", ""]
        for row in rows
        if "methods" not in row and row["regret"]
    ]
    return _table(["set", *methods, "auto's choice", "regret", "chosen, in how many runs", "served"], shown)


def _served(row: Row) -> str:
    """Where a network from scratch was trained in each run: how good what is served was, and what it costs."""
    if "served" not in row:
        return ""
    found = f"{_bounded(row['served'])}; the network from scratch, {_bounded(row['scratch'])}, in {row['fallen_back']}"
    costs = row["regret_with_scratch"]
    return f"{found}; regret against the better of the two {_bounded(costs, sign=True)}" if costs else found


def _probe(rows: list[Row]) -> list[str]:
    return _table(
        ["set", "test accuracy"], [[row["set"], _bounded(row)] for row in rows if row["method"] == "linear_probe"]
    )


def _few_shot(rows: list[Row]) -> list[str]:
    shown = [
        [row["set"], str(row["num_ways"]), str(row["shots"]), _bounded(row), f"{row['standard_deviation']:.3f}"]
        for row in rows
    ]
    return _table(["set", "classes", "images of each", "accuracy", "deviation from draw to draw"], shown)


def _all_images(rows: list[Row]) -> list[str]:
    shown = [
        [row["set"], _bounded(row), _bounded(row["gain_over_probe"], sign=True)]
        for row in rows
        if row["method"] == "few_shot"
    ]
    return _table(["set, all images", "test accuracy", "gain over the probe"], shown)


def _tuned(rows: list[Row]) -> list[str]:
    shown = [
        [
            row["set"],
            row["method"],
            str(row["trained_params"]),
            _bounded(row),
            _bounded(row["gain_over_probe"], sign=True),
        ]
        for row in rows
    ]
    return _table(["set", "recipe", "trained numbers", "test accuracy", "gain over the probe"], shown)


def _adapted(rows: list[Row]) -> list[str]:
    shown = [
        [
            f"{row['source']} -> {row['target']}",
            row["scored"],
            _bounded(row["source_only"]),
            _bounded(row["adapt"]),
            _bounded(row["gain"], sign=True),
            ", ".join(f"{what} {row['chosen'].count(what)}" for what in sorted(set(row["chosen"]))),
        ]
        for row in rows
    ]
    return _table(["source -> target", "scored", "source only", "adapted", "gain", "served, in how many runs"], shown)


def _named(rows: list[Row]) -> list[str]:
    shown = [
        [row["set"], f"{row['chance']:.3f}", row["approach"], row["centre"], _bounded(row, "class_mean")]
        for row in rows
    ]
    return _table(["set, no image", "chance", "approach", "mean of", "class-mean accuracy"], shown)


def _aligned(rows: list[Row]) -> list[str]:
    shown = [
        [
            f"{row['source']} -> {row['target']}",
            row["alignment"],
            row["kind"],
            _bounded(row),
            _bounded(row["gain"], sign=True),
        ]
        for row in rows
    ]
    return _table(["source -> target", "alignment", "kind", "accuracy behind the source's probe", "gain"], shown)


def _bounded(row: Row, name: str = "mean", *, sign: bool = False) -> str:
    style = "+.3f" if sign else ".3f"
    value = format(row[name], style)
    return value if row["low"] is None else f"{value} [{row['low']:{style}}, {row['high']:{style}}]"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


TABLES: dict[str, tuple[tuple[str, Callable[[list[Row]], list[str]]], ...]] = {
    "auto": (("choosing", _chosen),),
    "linear_probe": (("frozen", _probe),),
    "few_shot": (("episodes", _few_shot), ("frozen", _all_images)),
    "fine_tune": (("tuning", _tuned),),
    "adapt": (("adaptation", _adapted),),
    "zero_shot": (("naming", _named),),
    "alignments": (("aligned", _aligned),),
}
