"""Tables of a report's page about how good the model is: rows of text from the document's numbers."""

from collections.abc import Mapping
from typing import Any

from app.pages.figures import Facts, at, because, count, facts, fixed, is_number, number, percent, points, rows, span
from app.pages.headline import BASELINES

Document = Mapping[str, Any]
# What a page shows of long lists; the JSON has all.
CLASSES, CONFUSED, MORE = 30, 10, 15
SCORES = ("precision", "recall", "f1")
NEEDED = {"fewer": "fewer than were looked at", "not_reached": "not within what the curve can tell"}


def classes(document: Document) -> dict[str, Any]:
    """Per class, worst F1 first, classes without an item last; in two parts, of which the second is folded away."""

    def place(row: Mapping[str, Any]) -> tuple[bool, float, str]:
        f1 = row.get("f1")
        return (not is_number(f1), float(f1) if f1 is not None and is_number(f1) else 0.0, str(row.get("label", "")))

    told = [
        {
            "label": str(row.get("label", "")),
            "num": count(row.get("num_samples")),
            "scores": [
                {"text": fixed(row.get(name), 2), "width": round(100 * row[name]) if is_number(row.get(name)) else None}
                for name in SCORES
            ],
        }
        for row in sorted(rows(document, "per_class"), key=place)
    ]
    worst = at(document, "worst_class") or {}
    note = ""
    if worst:
        note = (
            f"Lowest recall: {worst.get('label')}, {percent(worst.get('recall'))} of {count(worst.get('num_samples'))} "
            f"images, 95 % interval {span(worst.get('low'), worst.get('high'))}. Of many small classes one is low by "
            "chance alone."
        )
    return {"first": told[:CLASSES], "rest": told[CLASSES:], "note": note}


def confused(document: Document) -> list[dict[str, str]] | None:
    """The pairs that are confused most; None where the document does not list them."""
    if not isinstance(at(document, "most_confused"), list):
        return None
    return [
        {
            "label": str(row.get("label", "")),
            "predicted": str(row.get("predicted", "")),
            "num": count(row.get("num_samples")),
            "share": percent(row.get("fraction")),
        }
        for row in rows(document, "most_confused")[:CONFUSED]
    ]


def evidence(document: Document) -> list[dict[str, str]]:
    """The comparisons that verdicts stand on."""
    told: list[dict[str, str]] = []
    seen: list[Any] = []
    for key, against in BASELINES.items():
        row = at(document, f"verdict_evidence.vs_{key}")
        if not isinstance(row, Mapping) or row in seen:
            continue
        seen.append(row)
        told.append(
            {
                "against": against,
                "verdict": str(row.get("verdict", "")),
                "difference": points(row.get("difference")),
                "interval": span(row.get("low"), row.get("high"), signed=True),
                "p": number(row.get("mcnemar_p")),
                "num": count(row.get("num_samples")),
                "what": str(row.get("what", "")),
                "optimism": str(row.get("optimism") or ""),
            }
        )
    return told


def spread(document: Document) -> list[str]:
    """How far accuracies depend on the seed alone, where that is known."""
    told = {"transfer": "this transfer", "scratch": BASELINES["scratch"]}
    found = {name: at(document, f"seed_deviation.{key}") for key, name in told.items()}
    return [
        f"{name}, over {count(row.get('num_seeds'))} draws: {points(row.get('value')).removeprefix('+')} points "
        f"({row.get('what', '')})"
        for name, row in found.items()
        if isinstance(row, Mapping)
    ]


def skipped(document: Document) -> list[tuple[str, str]]:
    """Baselines that are missing, and why."""
    found = at(document, "baselines_skipped") or {}
    return [(BASELINES.get(name, name), because(why)) for name, why in found.items()]


def forecast(document: Document) -> dict[str, Any]:
    """Expected and found, and what more images of a class would buy."""
    found = at(document, "forecast") or {}
    inside = found.get("inside")
    asked = rows(found, "more_images")
    more = [row for row in asked if is_number(row.get("gain_points"))]
    # Of none of them anything can be told: one reason stands for all.
    untold = str(asked[0].get("reason") or "") if asked and not more else ""
    return {
        "facts": facts(
            [
                ("Expected", found.get("expected"), percent),
                ("95 % prediction interval", span(found.get("low"), found.get("high")) or None, str),
                ("Found", found.get("found"), percent),
                ("Off by", found.get("error"), lambda value: f"{points(value)} points"),
            ]
        ),
        "inside": None if inside is None else "inside the interval" if inside else "outside the interval",
        "what": str(found.get("what") or ""),
        "more": [
            {
                "label": str(row.get("label", "")),
                "images": count(row.get("images")),
                "gain": points(row["gain_points"] / 100),
                "interval": _hundredths(row.get("low"), row.get("high")),
            }
            for row in more[:MORE]
        ],
        "hidden": max(0, len(more) - MORE),
        # The learning curve has them, where there is one.
        "needed": None if at(document, "curve") else labels_needed(found),
        "no_more": str(found.get("more_images_skipped") or untold),
    }


def labels_needed(told: Any) -> dict[str, Any] | None:
    """Labels that accuracies need; those that are surely reached or surely not stand for all beyond them."""
    entries = rows(told, "labels_needed")
    if not entries:
        reason = at(told, "labels_needed_skipped") or at(told, "reasons.labels_needed")
        return {"rows": [], "missing": because(reason)} if reason else None
    outcomes = [row.get("outcome") for row in entries]
    first = max((place for place, found in enumerate(outcomes) if found == "fewer"), default=0)
    last = min((place for place, found in enumerate(outcomes) if found == "not_reached"), default=len(entries))
    return {
        "rows": [
            {
                "accuracy": percent(row.get("accuracy")),
                "num": NEEDED.get(str(row.get("outcome")), count(row.get("num_samples"))),
                # Where no number is told, there is nothing that an interval could be of.
                "interval": "" if str(row.get("outcome")) in NEEDED else _open(row.get("low"), row.get("high")),
                "probability": percent(row.get("probability")),
            }
            for row in entries[first : last + 1]
        ],
        "missing": None,
    }


def _open(low: Any, high: Any) -> str:
    """An interval of counts, of which either end may lie where nobody looked."""
    if not (is_number(low) or is_number(high)):
        return "wider than what was looked at, on both sides"
    first = f"from {count(low)}" if is_number(low) else "from fewer than were looked at"
    return f"{first} to {count(high)}" if is_number(high) else f"{first}, with no end that can be told"


def _hundredths(low: Any, high: Any) -> str:
    return span(low / 100, high / 100, signed=True) if is_number(low) and is_number(high) else ""


def calibration(document: Document) -> Facts:
    """Errors of the probabilities on the scored items."""
    found = at(document, "calibration") or {}
    few = (at(document, "not_computed") or {}).get("calibration.ece")
    curve = found.get("risk_coverage") or {}
    told = facts(
        [
            ("Calibrated", found.get("calibrated"), lambda value: "yes" if value else "no: scores rank, no more"),
            ("Temperature", found.get("temperature"), number),
            ("Expected calibration error", found.get("ece"), fixed),
            ("Adaptive calibration error", found.get("adaptive_ece"), fixed),
            ("Brier score (0 to 2)", found.get("brier"), fixed),
            ("Negative log-likelihood", found.get("nll"), fixed),
            ("Area under risk and coverage", curve.get("aurc"), fixed),
            ("of it avoidable by a better order", curve.get("excess"), fixed),
        ]
    )
    return [*told, ("Calibration errors", f"not computed: {few}")] if few else told


def estimate(document: Document) -> dict[str, Any]:
    """Accuracy by confidence alone, and what was found afterwards."""
    found = at(document, "estimate") or {}
    return {
        "facts": facts(
            [
                ("Estimated accuracy", found.get("value"), percent),
                ("95 % interval, of chance alone", span(found.get("low"), found.get("high")) or None, str),
                ("Where answers are known", found.get("known_accuracy"), percent),
                ("Images with known answers", found.get("num_known"), count),
                ("Images asked about", found.get("num_items"), count),
                ("Found afterwards, with labels", found.get("found"), percent),
                ("Off by", found.get("error"), lambda value: f"{points(value)} points"),
                ("Method", found.get("method"), str),
            ]
        ),
        "warning": str(found.get("warning") or ""),
    }


def temperature(document: Document) -> dict[str, Any] | None:
    """Errors without and with the temperature on selection data."""
    found = at(document, "calibration.selection")
    if not isinstance(found, Mapping):
        return None
    names = {"ece": "expected calibration error", "brier": "Brier score", "nll": "negative log-likelihood"}
    return {
        "what": f"{found.get('what', '')}, {count(found.get('num_samples'))} images",
        "rows": [
            {"name": label, "before": fixed(at(found, f"before.{key}")), "after": fixed(at(found, f"after.{key}"))}
            for key, label in names.items()
        ],
    }


def curve(found: Any) -> Facts:
    """What the curve says in numbers, where it says it."""
    told = facts(
        [
            ("Mean accuracy over the curve (AULC)", at(found, "aulc"), percent),
            ("Labels a network from scratch needs for each", at(found, "label_multiplier"), number),
        ]
    )
    # Bounds of a number that is not there are missing for the same reason.
    reasons = {key: why for key, why in (at(found, "reasons") or {}).items() if key != "labels_needed"}
    reasons = {key: why for key, why in reasons.items() if why != reasons.get(key.rpartition("_")[0])}
    return [*told, *((f"{key.replace('_', ' ')}: not computed", str(why)) for key, why in reasons.items())]


def training(document: Document) -> Facts:
    """How it was trained."""
    found = at(document, "details") or {}
    return facts(
        [
            ("Scope", found.get("scope"), str),
            ("Learning rate", found.get("learning_rate"), number),
            ("Epochs", found.get("epochs"), count),
            ("Kept epoch", found.get("best_epoch"), count),
            ("Ended", found.get("ended"), str),
            ("Served", found.get("served"), str),
        ]
    )
