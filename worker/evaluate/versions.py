"""Scores of published versions on a dataset that may have other labels, and the comparison of two. Torch-free.

A label that the model does not have can only be missed: its items count, and are named. Where items taught a version,
all figures are given again without them, and a comparison is decided on those that neither has met.

Shape legend: N items, C classes of the model, U of the model and the dataset together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.evaluate import sections
from worker.evaluate.sections import MIN_ECE_ITEMS
from worker.scores import calibration, intervals, metrics
from worker.scores.calibration import Calibration
from worker.scores.intervals import Interval
from worker.scores.metrics import ClassificationMetrics
from worker.scores.verdict import verdict

METRICS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
FEW = f"under {MIN_ECE_ITEMS} items a calibration error says more of the items than of the model"
NO_PROBABILITY = "some items have a label that the model does not know, so their likelihood is no number"
WORDS = {"positive": "better", "negative": "worse", "none": "no evidence"}

Bools = NDArray[np.bool_]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """A version's answers in the numbering of all labels together.

    Shape:
        probabilities_NU: [N, U]
        labels_N: [N]
        known_N: [N], whether the model has the item's label at all
    """

    names: tuple[str, ...]
    probabilities_NU: NDArray[np.float64]
    labels_N: Labels
    known_N: Bools

    @property
    def correct_N(self) -> Bools:
        """Which items are named right."""
        return np.asarray(self.probabilities_NU.argmax(1) == self.labels_N)

    def take(self, keep_N: Bools) -> "Judged":
        """Some of the items."""
        return Judged(self.names, self.probabilities_NU[keep_N], self.labels_N[keep_N], self.known_N[keep_N])


def judge(probabilities_NC: NDArray[np.floating], own: Sequence[str], labels_N: Labels, given: Sequence[str]) -> Judged:
    """Brings a model's answers and a dataset's labels into one numbering: the model's labels, then the others.

    Args:
        probabilities_NC: of the model.
        own: its labels.
        labels_N: of the items.
        given: the dataset's names for them.
    """
    names = (*own, *(name for name in given if name not in set(own)))
    place = {name: number for number, name in enumerate(names)}
    numbers = np.array([place[name] for name in given], np.int64)[labels_N]
    missing = np.zeros((len(labels_N), len(names) - len(own)))
    return Judged(
        names, np.concatenate([probabilities_NC.astype(np.float64), missing], axis=1), numbers, numbers < len(own)
    )


def figures(judged: Judged) -> dict[str, Any]:
    """Flat scores with their 95 % intervals; null where a number would not be honest."""
    return _flat(judged, *_scores(judged))


def _scores(judged: Judged) -> tuple[ClassificationMetrics, dict[str, Interval], Calibration]:
    scores = metrics.classification(judged.probabilities_NU, judged.labels_N, judged.names)
    predicted_N = judged.probabilities_NU.argmax(1)
    bounds = intervals.of_scores(judged.labels_N, predicted_N, len(judged.names))
    return scores, bounds, calibration.calibration(judged.probabilities_NU, judged.labels_N)


def _flat(
    judged: Judged, scores: ClassificationMetrics, bounds: dict[str, Interval], errors: Calibration
) -> dict[str, Any]:
    values = scores.flat()
    flat: dict[str, Any] = {name: values[name] for name in METRICS}
    flat |= intervals.bounds(bounds)
    flat["ece"] = errors.ece if len(judged.labels_N) >= MIN_ECE_ITEMS else None
    flat["brier"] = errors.brier
    flat["nll"] = errors.nll if judged.known_N.all() else None
    flat["num_items"] = len(judged.labels_N)
    return flat


def document(judged: Judged) -> dict[str, Any]:
    """All scores of one version: figures, classes, confusion, calibration, and labels that do not fit."""
    scores, bounds, errors = _scores(judged)
    flat = _flat(judged, scores, bounds, errors)
    enough = len(judged.labels_N) >= MIN_ECE_ITEMS
    counts = np.bincount(judged.labels_N, minlength=len(judged.names))
    lacking = sorted(set(judged.labels_N[~judged.known_N].tolist()))
    return {
        "metrics": flat,
        "intervals": {name: _interval(bounds[name]) if name in bounds else None for name in intervals.METRICS},
        "not_computed": intervals.reasons(judged.labels_N, "metrics.")
        | {f"intervals.{name}": why for name, why in intervals.missing(judged.labels_N).items()},
        "per_class": sections.per_class(scores),
        "confusion": scores.confusion(),
        "most_confused": scores.most_confused,
        "calibration": {
            "ece": flat["ece"],
            "adaptive_ece": errors.adaptive_ece if enough else None,
            "brier": flat["brier"],
            "nll": flat["nll"],
            "bins": errors.bins,
            "reasons": {
                **({} if enough else {"ece": FEW, "adaptive_ece": FEW}),
                **({} if judged.known_N.all() else {"nll": NO_PROBABILITY}),
            },
        },
        "labels": {
            # Each of their items is a miss: the model cannot say what it was never told.
            "missing": [{"label": judged.names[place], "num_items": int(counts[place])} for place in lacking],
            "num_items_missing": int((~judged.known_N).sum()),
            "without_items": [name for name, count in zip(judged.names, counts, strict=True) if not count],
        },
    }


def comparison(
    ours: Judged,
    theirs: Judged,
    names: tuple[str, str],
    unseen_N: Bools | None,
    labels_N: Labels,
    given: Sequence[str],
) -> dict[str, Any]:
    """Two versions on the same items: the paired difference, McNemar, classes, and a sentence.

    Args:
        ours: the first version.
        theirs: what it is compared with.
        names: of the two, for people.
        unseen_N: items that neither has met before; None where nobody knows.
        labels_N: in the dataset's own numbering, which both share.
        given: its names.
    """
    everything = np.ones(len(labels_N), bool)
    whole = _difference(ours, theirs, everything)
    leaked = unseen_N is not None and not unseen_N.all()
    clean = _difference(ours, theirs, unseen_N) if leaked and unseen_N is not None else None
    decided = clean if leaked else whole
    word = "no evidence" if decided is None else decided["verdict"]
    on = "items that neither has met before" if leaked else "all items"
    return {
        **(whole or {}),
        "without_seen": clean,
        "per_class": _classes(ours, theirs, labels_N, given),
        "per_class_note": "intervals of single classes are not corrected for their number",
        "verdict": word,
        "decided_on": on,
        "sentence": _sentence(names, decided, word, on, unseen_N is None),
    }


def _difference(ours: Judged, theirs: Judged, keep_N: Bools) -> dict[str, Any] | None:
    if not keep_N.any():
        return None
    a, b = ours.correct_N[keep_N], theirs.correct_N[keep_N]
    test = intervals.mcnemar(a, b)
    bound = intervals.paired_difference(a, b)
    return {
        "num_items": int(keep_N.sum()),
        "difference": _interval(bound),
        "mcnemar": {
            "num_only_first": test.num_only_a,
            "num_only_second": test.num_only_b,
            "p_value": test.p_value,
        },
        "verdict": WORDS[verdict(bound)],
    }


def _classes(ours: Judged, theirs: Judged, labels_N: Labels, given: Sequence[str]) -> list[dict[str, Any]]:
    """Recall of each class under both, with the paired interval of the difference."""
    rows = []
    for label, name in enumerate(given):
        here = labels_N == label
        if not here.any():
            continue
        a, b = ours.correct_N[here], theirs.correct_N[here]
        bound = intervals.paired_difference(a, b)
        rows.append(
            {
                "label": name,
                "num_samples": int(here.sum()),
                "recall": float(a.mean()),
                "recall_against": float(b.mean()),
                "difference": _interval(bound),
            }
        )
    return rows


def _sentence(names: tuple[str, str], decided: dict[str, Any] | None, word: str, on: str, unknown: bool) -> str:
    ours, theirs = names
    if decided is None:
        return f"No evidence: every item is among what {ours} or {theirs} has met before, so none can tell them apart."
    bound, test = decided["difference"], decided["mcnemar"]
    told = (
        f"accuracy differs by {bound['value']:+.3f} (95 % interval {bound['low']:+.3f} to {bound['high']:+.3f}, "
        f"McNemar p = {test['p_value']:.3g}) on {decided['num_items']} {on.removeprefix('all ')}"
    )
    lead = {
        "better": f"{ours} is better than {theirs}",
        "worse": f"{ours} is worse than {theirs}",
        "no evidence": f"No evidence that {ours} and {theirs} differ",
    }[word]
    doubt = "; whether a version has met these items before is not known" if unknown else ""
    return f"{lead}: {told}{doubt}."


def _interval(bound: Interval) -> dict[str, Any]:
    return {"value": bound.value, "low": bound.low, "high": bound.high, "method": bound.method}
