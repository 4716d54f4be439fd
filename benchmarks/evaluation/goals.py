"""What the figures must show, stated before they were measured."""

from collections.abc import Callable
from typing import Any

from benchmarks.evaluation.adaptation import PAIRS
from benchmarks.evaluation.choosing import ALL, NUM_SEEDS
from benchmarks.evaluation.mislabelled import PRECISION, RECALL

Goal = dict[str, Any]


def check(parts: dict[str, Any]) -> list[Goal]:
    """Every goal; what has not been measured is not met."""
    rows = {name: parts.get(name, {}).get("rows", []) for name in CHECKS}
    wanted = {(name, None) for name in CHECKS} | {("adaptation", pair) for pair in PAIRS}
    found = {(name, None) for name in CHECKS if rows[name]}
    found |= {("adaptation", (row["source"], row["target"])) for row in rows["adaptation"]}
    missing = [" ".join((name, *(pair or ()))) for name, pair in sorted(wanted - found, key=str)]
    return [
        *(goal for name, goals in CHECKS.items() for goal in goals(rows[name])),
        *({"what": f"{what}: not measured", "found": None, "goal": None, "met": False} for what in missing),
    ]


def _episodes(rows: list[Goal]) -> list[Goal]:
    return [
        _least("five pictures of each class of stamps_photos", row["mean"], 0.83)
        for row in rows
        if (row["set"], row["shots"]) == ("stamps_photos", 5)
    ]


def _adaptation(rows: list[Goal]) -> list[Goal]:
    goals = [
        _least(f"adapt {row['source']} -> {row['target']}, gain over source only", row["gain"]["mean"], -0.01)
        for row in rows
    ]
    emoji = [row["gain"]["mean"] for row in rows if row["source"].startswith("emoji")]
    if emoji:
        goals.append(_least("adapt between the emoji, mean gain", round(sum(emoji) / len(emoji), 4), 0.05))
    return goals


def _naming(rows: list[Goal]) -> list[Goal]:
    """With a mean from elsewhere, and as the recipe does by default."""
    floors = {("stamps_photos", "shipped"): 0.60, ("emoji_google", "emoji_twitter"): 0.22}
    return [
        _least(
            f"zero_shot on {row['set']}, mean of {row['centre']}, class mean",
            row["class_mean"],
            floors[row["set"], row["centre"]],
        )
        for row in rows
        if (row["set"], row["centre"]) in floors and row["approach"] == "combined"
    ]


def _tuning(rows: list[Goal]) -> list[Goal]:
    bounds = [row["gain_over_probe"]["low"] for row in rows if row["method"].startswith("fine_tune")]
    known = [bound for bound in bounds if bound is not None]
    what = "norm or ssf against the probe on mnist, best lower bound of the gain"
    return [_least(what, max(known), 0.0001)] if known else []


def _choosing(rows: list[Goal]) -> list[Goal]:
    """Close to hindsight, never far under the probe, and honest where pretraining does not help."""
    goals = []
    for row in rows:
        if row["set"] == ALL:
            bound = row["regret"] and row["regret"]["high"]
            what = f"auto, mean regret over {row['num_sets']} sets, upper 95 % bound"
            goals.append(_most(what, 1.0 if bound is None else bound, 0.01))
            continue
        goals += [
            _least(f"auto on {row['set']}, over the probe", row["over_probe"]["mean"], -0.01),
            _least(f"auto on {row['set']}, seeds", row["auto"]["num_seeds"], NUM_SEEDS),
        ]
        if row["set"] == "mnist":
            scratch = row["scratch"]["mean"] if row["scratch"] else 0.0
            goals.append(_least("auto on mnist, accuracy of the network from scratch", scratch, 0.85))
            goals.append(_most("auto on mnist, verdicts that are positive", row["verdicts"].get("positive", 0), 0))
        if row["set"] == "stamps_photos":
            others = sum(number for word, number in row["verdicts"].items() if word != "positive")
            goals.append(_most("auto on stamps_photos, verdicts that are not positive", others, 0))
    return goals


def _mislabelled(rows: list[Goal]) -> list[Goal]:
    return [
        _least(f"wrong labels of {row['set']}: {field}", row[field], goal)
        for row in rows
        for field, goal in (("recall", RECALL), ("precision", PRECISION))
    ]


def _most(what: str, found: float, goal: float) -> Goal:
    return {"what": what, "found": found, "goal": goal, "met": found <= goal}


def _foretold(rows: list[Goal]) -> list[Goal]:
    """Of intervals that should hold in 95 % of the runs; the class that was made rare must be asked for first."""
    goals = []
    wanted = (("expected", "held", 0.9), ("half", "held", 0.85), ("rare", "held", 0.9), ("grown", "held", 0.9))
    for what, field, goal in (*wanted, ("rare", "first", 0.9)):
        found = [row[field] for row in rows if row["what"] == what and row["num_runs"]]
        if found:
            goals.append(_least(f"forecast, {what}: {field}, mean of sets", round(sum(found) / len(found), 3), goal))
    return goals


def _least(what: str, found: float, goal: float) -> Goal:
    return {"what": what, "found": found, "goal": goal, "met": found >= goal}


CHECKS: dict[str, Callable[[list[Goal]], list[Goal]]] = {
    "foretold": _foretold,
    "episodes": _episodes,
    "adaptation": _adaptation,
    "naming": _naming,
    "tuning": _tuning,
    "choosing": _choosing,
    "mislabelled": _mislabelled,
}
