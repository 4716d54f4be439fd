"""Geometry of the pictures of classes, features and learned factors; see `charts`.

Only what is drawn is worked out here: which cells have items, where a point lies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.pages.charts import Chart, scale
from app.pages.figures import at, is_number, percent, rows, short

# Of more classes a confusion matrix shows those that are confused most.
MATRIX_CLASSES = 40
MATRIX_SIDE, MIN_CELL, MAX_CELL, NUMBER_CELL = 560, 13, 46, 19
LABEL_LENGTH = 24
# Of a number below an axis, about.
TEXT_WIDTH = 40
# What has more classes is coloured by group.
MAX_COLOURS = 10


def confusion(document: Any) -> Chart | None:
    """The matrix as cells that have items; rows are true classes."""
    labels, matrix = at(document, "labels"), at(document, "matrix")
    if not labels or not matrix or len(labels) != len(matrix):
        return None
    chosen = _confused(matrix) if len(labels) > MATRIX_CLASSES else list(range(len(labels)))
    cell = max(MIN_CELL, min(MAX_CELL, MATRIX_SIDE // len(chosen)))
    labels_shown = [short(labels[index], LABEL_LENGTH) for index in chosen]
    # Names stand at a slant: so high, at 11 pixels, that the longest one fits.
    left, top = 178, 24 + round(5.4 * max(map(len, labels_shown)))
    cells = []
    for y, row in enumerate(chosen):
        total = sum(matrix[row])
        for x, column in enumerate(chosen):
            num = matrix[row][column]
            if not num:
                continue
            share = num / total
            cells.append(
                {
                    "x": left + x * cell,
                    "y": top + y * cell,
                    "right": row == column,
                    "opacity": round(0.12 + 0.88 * share, 2),
                    "dark": share > 0.5,
                    "text": str(num) if cell >= NUMBER_CELL else "",
                    "title": f"{labels[row]} called {labels[column]}: {num} of {total}",
                }
            )
    side = cell * len(chosen)
    return {
        "width": left + side + 90,
        "height": top + side + 10,
        "left": left,
        "top": top,
        "cell": cell,
        "side": side,
        "num": len(chosen),
        "cells": cells,
        "labels": [
            {"text": text, "title": str(labels[index])} for text, index in zip(labels_shown, chosen, strict=True)
        ],
        "shown": len(chosen),
        "of": len(labels),
    }


def _confused(matrix: Sequence[Sequence[int]]) -> list[int]:
    """The classes with the most wrong answers, given or received, in their own order."""
    wrong = [sum(row) - row[place] for place, row in enumerate(matrix)]
    for row, values in enumerate(matrix):
        for column, num in enumerate(values):
            if row != column:
                wrong[column] += num
    worst = sorted(range(len(matrix)), key=lambda index: -wrong[index])[:MATRIX_CLASSES]
    return sorted(worst)


def feature_map(document: Any) -> Chart | None:
    """Points of all groups; coloured by class where classes are few, else by group."""
    groups = [one for one in rows(document, "groups") if one.get("x") and len(one["x"]) == len(one.get("y") or [])]
    if not groups:
        return None
    labels = at(document, "labels") or []
    by_class = 0 < len(labels) <= MAX_COLOURS
    xs = [value for one in groups for value in one["x"]]
    ys = [value for one in groups for value in one["y"]]
    x, y = scale(min(xs), max(xs), 10, 510), scale(min(ys), max(ys), 370, 10)
    drawn = []
    for place, one in enumerate(groups):
        numbers, correct = one.get("label") or [], one.get("correct") or []
        drawn.append(
            {
                "name": one.get("name", ""),
                # Pale is what others stand before; one alone is no background.
                "is_front": place > 0 or len(groups) == 1,
                "colour": None if by_class else place,
                "points": [
                    {
                        "x": x(across),
                        "y": y(up),
                        "colour": numbers[item] if by_class and item < len(numbers) and numbers[item] >= 0 else None,
                        "wrong": item < len(correct) and not correct[item],
                        "title": _label(labels, numbers, item),
                    }
                    for item, (across, up) in enumerate(zip(one["x"], one["y"], strict=True))
                ],
                "shown": len(one["x"]),
                "of": one.get("num_items", len(one["x"])),
            }
        )
    return {
        "groups": drawn,
        "by_class": by_class,
        "labels": [short(label, LABEL_LENGTH) for label in labels] if by_class else [],
        "any_wrong": any(point["wrong"] for one in drawn for point in one["points"]),
    }


def _label(labels: Sequence[str], numbers: Sequence[int], item: int) -> str:
    number = numbers[item] if item < len(numbers) else -1
    return str(labels[number]) if 0 <= number < len(labels) else "no label"


def factors(document: Any, name: str, start: float) -> Chart | None:
    """Quantiles of alpha or beta by stage, as boxes on a common axis; `start` is where training began."""
    found = []
    for stage, values in document.items() if isinstance(document, Mapping) else ():
        quantiles = at(values, f"{name}.quantiles")
        levels = [quantiles.get(level) for level in ("0.05", "0.25", "0.5", "0.75", "0.95")] if quantiles else []
        if len(levels) == 5 and all(map(is_number, levels)):
            found.append((str(stage), levels, at(values, f"{name}.share_moved")))
    if not found:
        return None
    ends = [value for _, levels, _ in found for value in levels] + [start]
    room = 0.05 * (max(ends) - min(ends)) or 0.01
    x, row = scale(min(ends) - room, max(ends) + room, 150, 520), 24
    return {
        "height": row * len(found) + 30,
        "bottom": row * len(found) + 4,
        "start": x(start),
        # Where training began is always named; an end that would be printed over it is not.
        "ends": [
            {"x": x(value), "text": f"{value:.4g}"}
            for value in dict.fromkeys((min(ends), start, max(ends)))
            if value == start or abs(x(value) - x(start)) >= TEXT_WIDTH
        ],
        "rows": [
            {
                "y": row * place + 14,
                "label": short(stage, 20),
                "moved": percent(moved),
                "marks": [x(value) for value in levels],
                "title": f"{stage}: middle {levels[2]:.4g}, nine of ten between {levels[0]:.4g} and {levels[4]:.4g}",
            }
            for place, (stage, levels, moved) in enumerate(found)
        ],
    }
