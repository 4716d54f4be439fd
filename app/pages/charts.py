"""Geometry of the pictures: from numbers to coordinates, which the macros in `templates/charts.html` draw.

Everything is in pixels of an SVG, rounded to a tenth: a page stays light. No statistics are computed here.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log2
from typing import Any

from app.pages.figures import at, count, fixed, is_number, percent, rows, short
from app.pages.figures import points as in_points

Chart = dict[str, Any]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Values to pixels; a range without width lies in the middle."""
    width = high - low

    def place(value: float) -> float:
        share = (value - low) / width if width else 0.5
        return round(start + share * (end - start), 1)

    return place


def ticks(low: float, high: float, step: float) -> list[float]:
    """Multiples of a step within a range."""
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(place * step, 6) for place in range(first, last + 1)]


def intervals(entries: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Values with their intervals, one row each, on a common axis of shares.

    Args:
        entries: `label`, `value`, `low`, `high`; those without a value are left out.
    """
    shown = [entry for entry in entries if is_number(entry.get("value"))]
    if not shown:
        return None
    ends = [entry[name] for entry in shown for name in ("value", "low", "high") if is_number(entry.get(name))]
    low, high = max(0.0, floor(10 * min(ends)) / 10), min(1.0, ceil(10 * max(ends)) / 10)
    x, row = scale(low, high, 190, 650), 30
    return {
        "width": 720,
        "height": row * len(shown) + 34,
        "bottom": row * len(shown) + 8,
        "ticks": [{"x": x(value), "text": f"{100 * value:.0f} %"} for value in ticks(low, high, 0.1)],
        "rows": [
            {
                "y": row * place + 18,
                "label": short(entry["label"], 26),
                "title": f"{entry['label']}: {percent(entry['value'])}",
                "x": x(entry["value"]),
                "low": x(entry["low"]) if is_number(entry.get("low")) else None,
                "high": x(entry["high"]) if is_number(entry.get("high")) else None,
                "text": percent(entry["value"]),
                "main": place == 0,
            }
            for place, entry in enumerate(shown)
        ],
    }


def reliability(bins: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Accuracy over confidence, by bins; the area of a dot goes with the items in its bin."""
    full = [
        one
        for one in bins
        if one.get("num_samples") and is_number(one.get("accuracy")) and is_number(one.get("confidence"))
    ]
    if not full:
        return None
    x, y, most = scale(0, 1, 40, 300), scale(0, 1, 270, 10), max(one["num_samples"] for one in full)
    return {
        "dots": [
            {
                "x": x(one["confidence"]),
                "y": y(one["accuracy"]),
                "radius": round(2.5 + 8 * (one["num_samples"] / most) ** 0.5, 1),
                "ideal": y(one["confidence"]),
                "title": f"{count(one['num_samples'])} items: sure by {percent(one['confidence'])}, "
                f"right in {percent(one['accuracy'])}",
            }
            for one in full
        ],
        "ticks": [{"x": x(value), "y": y(value), "text": f"{100 * value:.0f}"} for value in ticks(0, 1, 0.25)],
    }


def line(
    series: Sequence[tuple[float, float]], *, low: float, high: float, logarithmic: bool = False
) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Scales of a line chart: its x runs over the series, its y over a range of shares."""
    places = [log2(x) if logarithmic else x for x, _ in series]
    inner = scale(min(places), max(places), 48, 430)
    return (lambda value: inner(log2(value) if logarithmic else value)), scale(low, high, 210, 12)


def curve(document: Any) -> Chart | None:
    """Accuracy over the number of labels, on a logarithmic axis: a list of points, or an object that has one."""
    points = rows({"points": document}, "points") or rows(document, "points")
    shown = [
        (float(one["num_samples"]), float(one["accuracy"]), [d for d in one.get("draws") or [] if is_number(d)])
        for one in points
        if is_number(one.get("num_samples")) and one["num_samples"] > 0 and is_number(one.get("accuracy"))
    ]
    if not shown:
        return None
    further = [
        one
        for one in rows(document, "extrapolation")
        if is_number(one.get("value")) and is_number(one.get("num_samples"))
    ]
    fit = at(document, "fit")
    values = [accuracy for _, accuracy, draws in shown for accuracy in (accuracy, *draws)]
    values += [one[name] for one in further for name in ("value", "low", "high") if is_number(one.get(name))]
    low, high = max(0.0, floor(10 * min(values)) / 10), min(1.0, ceil(10 * max(values)) / 10)
    sizes = [size for size, _, _ in shown] + [float(one["num_samples"]) for one in further]
    x, y = line([(size, 0.0) for size in sizes], low=low, high=high, logarithmic=True)
    return {
        "line": " ".join(f"{x(size)},{y(accuracy)}" for size, accuracy, _ in shown),
        "fit": _fitted(fit, min(sizes), max(sizes), x, y, (low, high)),
        "points": [
            {
                "x": x(size),
                "y": y(accuracy),
                "draws": [y(value) for value in draws],
                "title": f"{count(size)} labels: {percent(accuracy)}",
                "kept": False,
                "text": count(size),
            }
            for size, accuracy, draws in shown
        ],
        "further": [
            {
                "x": x(one["num_samples"]),
                "y": y(one["value"]),
                "low": y(one["low"]) if is_number(one.get("low")) else None,
                "high": y(one["high"]) if is_number(one.get("high")) else None,
                "title": f"{count(one['num_samples'])} labels: {percent(one['value'])} foretold",
                "text": count(one["num_samples"]),
            }
            for one in further
        ],
        "ticks": [{"y": y(value), "text": f"{100 * value:.0f} %"} for value in _shares(low, high)],
    }


def _fitted(
    fit: Any,
    first: float,
    last: float,
    x: Callable[[float], float],
    y: Callable[[float], float],
    bounds: tuple[float, float],
) -> str:
    """The power law err = a n^-b + c as a line; empty where there is none."""
    a, b, c = (at(fit, name) for name in ("a", "b", "c"))
    if not (is_number(a) and is_number(b) and is_number(c)) or first >= last:
        return ""
    sizes = [first * (last / first) ** (place / 24) for place in range(25)]
    values = [(size, min(max(1 - (a * size**-b + c), bounds[0]), bounds[1])) for size in sizes]
    return " ".join(f"{x(size)},{y(value)}" for size, value in values)


def _shares(low: float, high: float) -> list[float]:
    return ticks(low, high, 0.1 if high - low <= 0.6 else 0.2)


def epochs(entries: Sequence[Mapping[str, Any]], kept: Sequence[Any]) -> Chart | None:
    """Hold-out accuracy over the epochs of a training; those that are served are marked."""
    shown = [
        (float(one["epoch"]), float(one["val_accuracy"]))
        for one in entries
        if is_number(one.get("epoch")) and is_number(one.get("val_accuracy"))
    ]
    if len(shown) < 2:
        return None
    low = max(0.0, floor(10 * min(value for _, value in shown)) / 10)
    high = min(1.0, ceil(10 * max(value for _, value in shown)) / 10)
    x, y = line(shown, low=low, high=high)
    step = max(1, ceil(len(shown) / 10))
    return {
        "line": " ".join(f"{x(epoch)},{y(value)}" for epoch, value in shown),
        "fit": "",
        "further": [],
        "points": [
            {
                "x": x(epoch),
                "y": y(value),
                "draws": [],
                "title": f"epoch {epoch:.0f}: {percent(value)}" + (", kept" if epoch in kept else ""),
                "kept": epoch in kept,
                "text": f"{epoch:.0f}" if place % step == 0 else "",
            }
            for place, (epoch, value) in enumerate(shown)
        ],
        "ticks": [{"y": y(value), "text": f"{100 * value:.0f} %"} for value in _shares(low, high)],
    }


def risk(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Share of errors over the share of items that are answered."""
    shown = [
        (one["coverage"], one["risk"])
        for one in points
        if is_number(one.get("risk")) and is_number(one.get("coverage"))
    ]
    if len(shown) < 2:
        return None
    high = max(0.1, ceil(10 * max(value for _, value in shown)) / 10)
    x, y = scale(0, 1, 40, 300), scale(0, high, 270, 10)
    return {
        "line": " ".join(f"{x(coverage)},{y(value)}" for coverage, value in shown),
        "points": [
            {"x": x(coverage), "y": y(value), "title": f"the surest {percent(coverage)}: {percent(value)} wrong"}
            for coverage, value in shown
        ],
        "x_ticks": [{"x": x(value), "text": f"{100 * value:.0f}"} for value in ticks(0, 1, 0.25)],
        "y_ticks": [{"y": y(value), "text": f"{100 * value:.0f}"} for value in _shares(0, high)],
    }


def gains(adapted: Sequence[Mapping[str, Any]], job_id: str) -> Chart | None:
    """What adaptations gained over the distance of their domains, one of them marked; None for one alone."""
    if len(adapted) < 2:
        return None
    reach = max(0.1, ceil(10 * max(abs(one["gain"]) for one in adapted)) / 10)
    x, y = scale(0, 2, 40, 300), scale(-reach, reach, 270, 10)
    return {
        "zero": y(0),
        "points": [
            {
                "x": x(one["distance"]),
                "y": y(one["gain"]),
                "own": one["job_id"] == job_id,
                "title": f"{one['job_id']}: distance {fixed(one['distance'])}, gain {in_points(one['gain'])} points",
            }
            # This one last, on top.
            for one in sorted(adapted, key=lambda one: one["job_id"] == job_id)
        ],
        "x_ticks": [{"x": x(value), "text": f"{value:g}"} for value in ticks(0, 2, 0.5)],
        "y_ticks": [{"y": y(value), "text": f"{100 * value:+.0f}"} for value in ticks(-reach, reach, reach / 2)],
    }
