"""The report of an adaptation: the served model and the source alone on the same items of the target.

Target labels are met here for the first time, unless they were learned from. Where they only score, the verdict words
the paired interval on the scored items, since there is no other labelled item; it chose nothing. Where they were
learned from, it words the interval on the target's training items, out of fold, and the test split only reports.

Shape legend: T scored items, C classes.
"""

import resource
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.bundle import Predictions
from worker import features
from worker.evaluate import calibration, intervals, metrics
from worker.evaluate.intervals import Interval
from worker.evaluate.report import MIN_ECE_ITEMS, Evaluation
from worker.evaluate.verdict import gain, relative_error_reduction, verdict
from worker.methods.contract import Adaptation, Candidate, Float, Outcome, Rows, Task
from worker.two_domains import Truth

SCORES = (
    "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_macro_f1", "test_macro_recall",
    "source_only_accuracy", "ece",
)  # fmt: skip
WHAT = "the linear probe of the source, as it is, on the same items of the target"


@dataclass(frozen=True)
class _Scored:
    """One model on the scored items."""

    probabilities_TC: NDArray[np.float64]
    correct_T: NDArray[np.bool_]
    bounds: dict[str, Interval]


def evaluate(task: Task, outcome: Outcome, truth: Truth) -> Evaluation:
    """Scores the served model where the target has labels, and tells how it was chosen."""
    found, served = outcome.adaptation, outcome.candidate
    assert found is not None
    rows = truth.scored
    ours = _score(task, served, truth) if len(rows) else None
    theirs = ours if served is found.source_only else _score(task, found.source_only, truth) if len(rows) else None
    scores = ours and metrics.classification(ours.probabilities_TC, truth.labels_N[rows], task.class_names)
    calibrated = ours and _calibration(served, ours, truth.labels_N[rows])
    flat: dict[str, float | int | None] = dict.fromkeys(SCORES)
    if ours and theirs and scores and calibrated:
        flat |= {f"test_{name}": value for name, value in scores.flat().items()}
        for name, bound in ours.bounds.items():
            flat[f"test_{name}_low"], flat[f"test_{name}_high"] = bound.low, bound.high
        flat |= {"source_only_accuracy": float(theirs.correct_T.mean()), "ece": calibrated["ece"]}
    folds = served.fold_accuracy
    flat |= {
        "source_val_accuracy": found.source_val_accuracy,
        "val_accuracy": None,
        "cv_accuracy_mean": float(np.mean(folds)) if folds else None,
        "cv_accuracy_std": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        "num_test": len(rows),
    }
    evidence = _evidence(task, served, found, ours, theirs, truth)
    baseline = theirs and {**_baseline(theirs), "what": WHAT}
    document = {
        "job": task.context.document.id,
        "verdict": evidence and evidence["verdict"],
        "verdicts": {"vs_frozen": None, "vs_scratch": None, "vs_source_only": evidence and evidence["verdict"]},
        "verdict_evidence": {"vs_frozen": None, "vs_scratch": None, "vs_source_only": evidence},
        "served": {
            "what": served.name,
            "method": served.method,
            "backbone": served.backbone.name,
            "why": next(one.reason for one in reversed(outcome.decisions) if one.outcome == "served"),
        },
        "metrics": flat,
        "baselines": {"frozen": baseline, "scratch": None, "source_only": baseline},
        "baselines_skipped": {"scratch": "an adaptation is compared with the source alone"},
        "gain": _gain(ours, theirs, truth.labels_N[rows], task.seed) if ours and theirs else None,
        "per_class": [{"label": row["name"], **_without(row, "name")} for row in scores.per_class] if scores else [],
        "confusion": scores.confusion() if scores else None,
        "most_confused": scores.most_confused if scores else [],
        "calibration": calibrated,
        "domain": {**found.domain, "candidates": _candidates(found, served, truth)},
        "curve": None,
        "mapping": _mapping(served),
        "data": _data(task, truth),
        "cost": _cost(served, task),
        "decisions": [asdict(decision) for decision in outcome.decisions],
        "details": served.details,
    }
    shown = truth.scored if len(truth.scored) else np.arange(len(task.index))
    shown_features = served.features(shown)
    return Evaluation(flat, document, _predictions(task, served, truth, shown, shown_features), shown_features)


def _score(task: Task, candidate: Candidate, truth: Truth) -> _Scored:
    labels_T = truth.labels_N[truth.scored]
    probabilities_TC = candidate.head.probabilities(candidate.features(truth.scored))
    predicted_T = probabilities_TC.argmax(1)
    bounds = intervals.bootstrap(labels_T, predicted_T, task.num_classes, task.seed)
    return _Scored(probabilities_TC, predicted_T == labels_T, bounds)


def _evidence(
    task: Task, served: Candidate, found: Adaptation, ours: _Scored | None, theirs: _Scored | None, truth: Truth
) -> dict[str, Any] | None:
    """The paired difference that the verdict words; null where no item of the target has a label."""
    rows = served.selection.rows
    if len(rows):
        labels_T, what = task.labels_N[rows], served.selection.what
        place = np.searchsorted(found.source_only.selection.rows, rows)
        a, b = (
            logits.argmax(1) == labels_T
            for logits in (served.selection.logits, found.source_only.selection.logits[place])
        )
    elif ours and theirs:
        labels_T, what = truth.labels_N[truth.scored], f"{truth.what}, which chose nothing"
        a, b = ours.correct_T, theirs.correct_T
    else:
        return None
    difference = intervals.paired_difference(a, b, labels_T, task.seed)
    return {
        "verdict": verdict(difference),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "num_samples": len(labels_T),
        "mcnemar_p": intervals.mcnemar(a, b).p_value,
        "what": what,
    }


def _candidates(found: Adaptation, served: Candidate, truth: Truth) -> list[dict[str, Any]]:
    """What the validator saw of each candidate; and, computed after the choice, how right each would have been."""
    rows = truth.scored
    return [
        {
            "name": one.candidate.name,
            "served": one.candidate is served,
            **one.scores,
            "oracle_accuracy": float((_logits(one.candidate, rows).argmax(1) == truth.labels_N[rows]).mean())
            if len(rows)
            else None,
        }
        for one in found.tried
    ]


def _logits(candidate: Candidate, rows: Rows) -> NDArray[np.float64]:
    return candidate.head.logits(candidate.features(rows))


def _gain(ours: _Scored, theirs: _Scored, labels_T: NDArray[np.int64], seed: int) -> dict[str, Any]:
    difference = intervals.paired_difference(ours.correct_T, theirs.correct_T, labels_T, seed)
    reduction = relative_error_reduction(float(ours.correct_T.mean()), float(theirs.correct_T.mean()))
    return {**gain("source_only", difference), "relative_error_reduction": reduction}


def _baseline(scored: _Scored) -> dict[str, Any]:
    bound = scored.bounds["accuracy"]
    return {"value": bound.value, "low": bound.low, "high": bound.high, "num_samples": len(scored.correct_T)}


def _calibration(served: Candidate, scored: _Scored, labels_T: NDArray[np.int64]) -> dict[str, Any]:
    found = asdict(calibration.calibration(scored.probabilities_TC, labels_T))
    if len(labels_T) < MIN_ECE_ITEMS:
        found |= {"ece": None, "adaptive_ece": None}
    return {"calibrated": served.calibrated, "temperature": served.head.temperature, **found}


def _mapping(served: Candidate) -> dict[str, Any]:
    return {
        "backbone": served.backbone.name,
        "parameters": served.backbone.num_params,
        "mapped": served.backbone.num_params,
        "frozen": served.backbone.num_params,
        "trained": served.trained_params,
        "new": served.head.num_params,
    }


def _data(task: Task, truth: Truth) -> dict[str, Any]:
    document = task.context.document
    assert document.dataset is not None
    assert task.source is not None
    target, source = document.dataset, document.datasets["source"]
    return {
        "dataset": target.id,
        "digest": target.digest,
        "splits": target.splits,
        "num_classes": task.num_classes,
        "source": {"dataset": source.id, "digest": source.digest, "images_learned_from": len(task.source.pool)},
        "target_labels_used": bool((task.labels_N >= 0).any()),
        "images_fitted_to": len(task.pool),
        "images_scored": len(truth.scored),
        # Transductive: the fit has seen the very images that are scored, though not their labels.
        "transductive": bool(np.isin(truth.scored, task.pool).any()),
        "scored": truth.what if len(truth.scored) else "nothing: the target has no labels",
    }


def _cost(served: Candidate, task: Task) -> dict[str, Any]:
    extraction = served.extraction
    return {
        "transfer_seconds": round(served.seconds, 3),
        "total_seconds": round(task.context.reporter.elapsed_seconds, 3),
        "images_cached": extraction.num_cached if extraction else None,
        "images_extracted": extraction.num_extracted if extraction else None,
        "extraction_seconds": round(extraction.seconds, 3) if extraction else None,
        "trained_params": served.trained_params,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": task.context.device,
        "precision": features.precision(task.context),
    }


def _without(row: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _predictions(task: Task, served: Candidate, truth: Truth, rows: Rows, features_TD: Float) -> Predictions:
    """Of the scored items; of all images where nothing is scored."""
    probabilities_TC = served.head.probabilities(features_TD)
    names, labels = task.class_names, truth.labels_N[rows].tolist()
    splits = np.array(["train", "val", "test"])[task.index.split[rows]]
    return Predictions(
        ids=[value.decode() for value in task.index.ids[rows]],
        sha256=[value.decode() for value in task.index.sha256[rows]],
        labels=[names[label] if label >= 0 else None for label in labels],
        predicted=[names[label] for label in probabilities_TC.argmax(1)],
        splits=splits.tolist(),
        probabilities=probabilities_TC.astype(np.float32),
    )
