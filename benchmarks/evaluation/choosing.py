"""What `auto` chooses, against each recipe that it chooses from, on one backbone, and what the wrong choice costs.

Every seed draws split, folds and training. Hindsight is the recipe with the best mean over the seeds, one for each set,
chosen on the test splits themselves: nobody can have it, and its luck counts against `auto`. Regret is what hindsight
has and `auto`'s choice has not, split by split. The interval over all sets is over seeds, of the mean over sets: the
sets are these five, and no draw from all sets that there are.

A network from scratch is no recipe: `auto` serves one where its verdict is `negative`, which is counted by itself
(`fallen_back`, `served`), and neither for `auto` nor against it. Where one was trained for certain, hindsight that may
take it as well is told beside (`regret_with_scratch`): what a verdict costs that must be sure before it speaks.

A run of a set and a seed is kept in the results as soon as it is done; the next start goes on with the next.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.evaluation import sets
from benchmarks.evaluation.frozen import SETS, SMALL
from benchmarks.evaluation.intervals import over_seeds
from benchmarks.evaluation.lab import Lab

# With ten the interval over all sets is as wide as the goal that it is held against.
NUM_SEEDS = 20
PROBE = "linear_probe"
METHODS: dict[str, dict[str, Any]] = {
    PROBE: {"method": PROBE},
    "few_shot": {"method": "few_shot"},
    "fine_tune last_stage": {"method": "fine_tune", "scope": "last_stage", "epochs": 20},
}
# On two idle cores all steps take two minutes: how busy the machine is must not decide what is tried.
MINUTES = 15
# Where the verdict is known: photographs, which the backbone knows, and digits, which it has never seen.
JUDGED = ("stamps_photos", "mnist")
ALL = "all"

Run = dict[str, Any]


def run(lab: Lab) -> Iterator[dict[str, Any]]:
    """Goes on where the results stop; a document after every run."""
    found, missing = lab.found(SETS)
    seeds = range(max(NUM_SEEDS, len(lab.seeds)))
    known: dict[str, Any] = lab.known.get("choosing", {})
    runs: list[Run] = list(known.get("runs", [])) if known.get("minutes") == MINUTES else []
    yield _document(runs, missing)
    done = {(one["set"], one["seed"]) for one in runs}
    for seed in seeds:
        for name, pictures in found.items():
            if (name, seed) not in done:
                runs.append(_one(lab, name, pictures, seed))
                yield _document(runs, missing)


def _one(lab: Lab, name: str, pictures: list[sets.File], seed: int) -> Run:
    chosen = sets.per_class(pictures, SMALL[name], seed) if name in SMALL else pictures
    dataset = lab.store(name, chosen, seed)
    accuracies = {method: round(lab.outcome(recipe, dataset, seed)[0], 4) for method, recipe in METHODS.items()}
    recipe = {"method": "auto", "max_minutes": MINUTES}
    if name in JUDGED:
        published = lab.run(recipe, dataset, seed=seed)
        report = published["report"]
        scratch = report["baselines"]["scratch"]
        judged = {"verdict": report["verdict"], "scratch": scratch and round(scratch["value"], 4)}
        returned, decisions = report["fallback"], report["decisions"]
        served = published["metrics"]["test_accuracy"]
        accuracy = returned["transfer"]["value"] if returned else served
        judged |= {"served": round(served, 4), "fallen_back": returned and returned["over"]}
    else:
        accuracy, outcome = lab.outcome(recipe, dataset, seed)
        judged, decisions = {}, [{"step": one.step, "outcome": one.outcome} for one in outcome.decisions]
    kept = [one["step"] for one in decisions if one["outcome"] == "kept"]
    return {
        "set": name,
        "seed": seed,
        "accuracies": accuracies,
        "auto": round(accuracy, 4),
        "chosen": kept[-1].partition(" on ")[0].partition(" of ")[0],
        "tried": sum(one["outcome"] == "tried" for one in decisions),
        **judged,
    }


def _document(runs: Sequence[Run], missing: list[str]) -> dict[str, Any]:
    names = [name for name in SETS if any(one["set"] == name for one in runs)]
    rows = [_row(name, [one for one in runs if one["set"] == name]) for name in names]
    if rows:
        rows.append(_all(runs, {row["set"]: row["hindsight"] for row in rows}))
    return {
        "rows": rows,
        "runs": list(runs),
        "minutes": MINUTES,
        "not_found": missing,
        "images_per_class": SMALL,
        "interval": "t over seeds; for all sets over the mean of the sets in each seed",
    }


def _row(name: str, runs: list[Run]) -> dict[str, Any]:
    methods = {method: over_seeds([one["accuracies"][method] for one in runs]) for method in METHODS}
    hindsight = max(methods, key=lambda method: methods[method]["mean"])
    auto = [one["auto"] for one in runs]
    row = {
        "set": name,
        "auto": over_seeds(auto),
        "methods": methods,
        "hindsight": hindsight,
        "regret": over_seeds(_regrets(runs, hindsight)),
        "over_probe": over_seeds([one["auto"] - one["accuracies"][PROBE] for one in runs]),
        "chosen": dict(Counter(one["chosen"] for one in runs)),
    }
    if name in JUDGED:
        row["verdicts"] = dict(Counter(str(one["verdict"]) for one in runs))
        scratch = [one["scratch"] for one in runs if one["scratch"] is not None]
        row["scratch"] = over_seeds(scratch) if scratch else None
        row["served"] = over_seeds([one["served"] for one in runs])
        row["fallen_back"] = sum(one["fallen_back"] is not None for one in runs)
        row["regret_with_scratch"] = _with_scratch(runs, hindsight)
    return row


def _with_scratch(runs: Sequence[Run], hindsight: str) -> dict[str, float] | None:
    """Regret of what is served, where hindsight may take the network from scratch too; None where one run has none."""
    scratch = [one["scratch"] for one in runs]
    if None in scratch:
        return None
    best = [one["accuracies"][hindsight] for one in runs]
    if np.mean(scratch) > np.mean(best):
        best = scratch
    return over_seeds([mine - one["served"] for mine, one in zip(best, runs, strict=True)])


def _all(runs: Sequence[Run], hindsight: dict[str, str]) -> dict[str, Any]:
    """The mean over the sets, in seeds that have all of them."""
    by_seed: dict[int, dict[str, float]] = {}
    for one in runs:
        (regret,) = _regrets([one], hindsight[one["set"]])
        by_seed.setdefault(one["seed"], {})[one["set"]] = regret
    whole = [float(np.mean(list(found.values()))) for found in by_seed.values() if len(found) == len(hindsight)]
    return {"set": ALL, "num_sets": len(hindsight), "regret": over_seeds(whole) if whole else None}


def _regrets(runs: Sequence[Run], hindsight: str) -> list[float]:
    return [one["accuracies"][hindsight] - one["auto"] for one in runs]
