"""The transfer report: what the transfer gained over what, with intervals. The test split is touched here, once.

Verdicts are decided on selection data (out-of-fold or hold-out predictions); the test split only reports.

Shape legend: T test items, C classes, D features.
"""

import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import tensors
from app.artifact.bundle import Predictions
from worker import features
from worker.data.samples import Index
from worker.evaluate import calibration, intervals, leakage, metrics
from worker.evaluate.curve import learning_curve
from worker.evaluate.intervals import Interval
from worker.evaluate.verdict import gain, relative_error_reduction, verdict
from worker.methods.contract import Candidate, Float, Moved, Outcome, Rows, Scratch, Task
from worker.methods.reference import frozen, scratch

MIN_ECE_ITEMS = 200
NOT_ASKED = 'not computed for this recipe; ask for "report": "full"'


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a finished transfer.

    Args:
        metrics: flat, as the job's row shows them.
        report: the whole document.
        predictions: of each test item.
        test_features: of the same items, in their order, as the head takes them.

    Shape:
        test_features: [T, D]
    """

    metrics: dict[str, float | int | None]
    report: dict[str, Any]
    predictions: Predictions
    test_features: Float


@dataclass(frozen=True)
class _Tested:
    """One model on the test split."""

    probabilities_TC: NDArray[np.float64]
    predicted_T: NDArray[np.int64]
    correct_T: NDArray[np.bool_]
    intervals: dict[str, Interval]


def evaluate(task: Task, outcome: Outcome, test: Rows, *, compare: bool) -> Evaluation:
    """Scores the candidate on the test split and compares it with what a user could have had without it.

    Args:
        task: the data without the test split.
        outcome: the candidate, and what was compared on the way.
        test: rows of the test split.
        compare: whether the baseline from scratch and the learning curve are computed.
    """
    began = time.monotonic()
    candidate = outcome.candidate
    # What is compared with the candidate stands on the candidate's backbone, whichever the job began with.
    task = replace(task, backbone=candidate.backbone)
    baseline = outcome.frozen or frozen(task, candidate)
    small, skipped = scratch(task, candidate, outcome.limit_seconds) if compare else (None, NOT_ASKED)
    compared_seconds = time.monotonic() - began
    test_features = candidate.features(test)
    labels_T = task.labels_N[test]
    tested = _test(candidate.head.probabilities(test_features), labels_T, task)
    plain = (
        tested if baseline is candidate else _test(baseline.head.probabilities(baseline.features(test)), labels_T, task)
    )
    small_tested = _test(small.predict(test), labels_T, task) if small else None
    scores = metrics.classification(tested.probabilities_TC, labels_T, task.class_names)
    leaks = _leaks(task, candidate, test, test_features, tested)
    calibrated = _calibration(candidate, tested, labels_T)
    flat = _flat(task, candidate, tested, scores, calibrated["ece"])
    verdicts = {
        "vs_frozen": None if baseline is candidate else _verdict(task, candidate, baseline),
        "vs_scratch": _verdict(task, candidate, small) if small else None,
        "vs_source_only": None,
    }
    against, over = (small_tested, "scratch") if small_tested else (plain, "frozen")
    document = {
        "job": task.context.document.id,
        "verdict": verdicts["vs_scratch"] and verdicts["vs_scratch"]["verdict"],
        "verdicts": {name: found and found["verdict"] for name, found in verdicts.items()},
        "verdict_evidence": verdicts,
        "served": {
            "what": candidate.name,
            "method": candidate.method,
            "backbone": candidate.backbone.name,
            "why": _why(outcome),
        },
        "metrics": flat,
        "baselines": {
            "frozen": _baseline(plain, len(test), baseline.name),
            "scratch": small_tested and small and _baseline(small_tested, len(test), small.what),
            "source_only": None,
        },
        "baselines_skipped": {} if small else {"scratch": skipped},
        "gain": _gain(tested, against, over, labels_T, task.seed),
        "per_class": [{"label": row["name"], **without(row, "name")} for row in scores.per_class],
        "confusion": scores.confusion(),
        "most_confused": scores.most_confused,
        "calibration": calibrated,
        "domain": None,
        "curve": learning_curve(task) if compare else None,
        "mapping": {
            "backbone": candidate.backbone.name,
            "parameters": candidate.backbone.num_params,
            **_moved(candidate),
        },
        "data": _data(task, test, leaks),
        "cost": _cost(candidate, compared_seconds, task),
        "decisions": [asdict(decision) for decision in outcome.decisions],
        "details": {**candidate.details, "scratch": small.details if small else None},
    }
    predicted = _predictions(task.index, test, labels_T, tested, task.class_names)
    return Evaluation(flat, document, predicted, test_features)


def _test(probabilities_TC: NDArray[np.float64], labels_T: NDArray[np.int64], task: Task) -> _Tested:
    predicted_T = probabilities_TC.argmax(1)
    bounds = intervals.bootstrap(labels_T, predicted_T, task.num_classes, task.seed)
    return _Tested(probabilities_TC, predicted_T, predicted_T == labels_T, bounds)


def _flat(
    task: Task,
    candidate: Candidate,
    tested: _Tested,
    scores: metrics.ClassificationMetrics,
    ece: float | None,
) -> dict[str, float | int | None]:
    """Flat metrics; null where a number would not be honest."""
    flat: dict[str, float | int | None] = {}
    for name, value in scores.flat().items():
        flat[f"test_{name}"] = value
    for name, bound in tested.intervals.items():
        flat[f"test_{name}_low"], flat[f"test_{name}_high"] = bound.low, bound.high
    selected = candidate.selection
    right = selected.logits.argmax(1) == task.labels_N[selected.rows]
    on_val = np.isin(selected.rows, task.val)
    folds = candidate.fold_accuracy
    flat |= {
        "val_accuracy": float(right[on_val].mean()) if on_val.any() else None,
        "selection_accuracy": float(right.mean()),
        "cv_accuracy_mean": float(np.mean(folds)) if folds else None,
        "cv_accuracy_std": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        "ece": ece,
        "num_test": len(tested.correct_T),
    }
    return flat


def _verdict(task: Task, candidate: Candidate, other: Candidate | Scratch) -> dict[str, Any] | None:
    """Paired, on the selection items that both have predicted without having learned from them."""
    rows, ours, theirs = np.intersect1d(candidate.selection.rows, other.selection.rows, return_indices=True)
    if not len(rows):
        return None
    labels = task.labels_N[rows]
    a = candidate.selection.logits[ours].argmax(1) == labels
    b = other.selection.logits[theirs].argmax(1) == labels
    difference = intervals.paired_difference(a, b, labels, task.seed)
    return {
        "verdict": verdict(difference),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "num_samples": len(rows),
        "mcnemar_p": intervals.mcnemar(a, b).p_value,
        "what": f"{candidate.selection.what} against {other.selection.what}",
    }


def _baseline(tested: _Tested, num_samples: int, what: str) -> dict[str, Any]:
    bound = tested.intervals["accuracy"]
    return {"value": bound.value, "low": bound.low, "high": bound.high, "num_samples": num_samples, "what": what}


def _gain(ours: _Tested, theirs: _Tested, over: str, labels_T: NDArray[np.int64], seed: int) -> dict[str, Any]:
    difference = intervals.paired_difference(ours.correct_T, theirs.correct_T, labels_T, seed)
    reduction = relative_error_reduction(float(ours.correct_T.mean()), float(theirs.correct_T.mean()))
    return {**gain(over, difference), "relative_error_reduction": reduction}


def _calibration(candidate: Candidate, tested: _Tested, labels_T: NDArray[np.int64]) -> dict[str, Any]:
    """How far probabilities can be believed; the errors are null where there are too few items to say."""
    found = asdict(calibration.calibration(tested.probabilities_TC, labels_T))
    if len(labels_T) < MIN_ECE_ITEMS:
        found |= {"ece": None, "adaptive_ece": None}
    return {"calibrated": candidate.calibrated, "temperature": candidate.head.temperature, **found}


def _leaks(task: Task, candidate: Candidate, test: Rows, test_features: Float, tested: _Tested) -> dict[str, Any]:
    """Test items with a twin in the training data, by bytes, by look, by features; and the accuracy without them."""
    index, pool = task.index, task.pool
    # A plain area has no look: its hash is 0, and equal to every other plain area's.
    looks = leakage.phash_twins(index.phash[test], index.phash[pool]) & (index.phash[test] != 0)
    exact = np.isin(index.sha256[test], index.sha256[pool])
    alike = (
        leakage.cosine_twins(test_features, candidate.features(pool)) if candidate.shared else np.zeros(len(test), bool)
    )
    found = leakage.leakage(tested.correct_T, exact, looks, alike).document()
    # Features of a trained graph are not kept for the training images: not looked at is not the same as none.
    return found if candidate.shared else {**found, "num_cosine": None}


def _data(task: Task, test: Rows, leaks: dict[str, Any]) -> dict[str, Any]:
    dataset = task.context.document.dataset
    assert dataset is not None
    counts = np.bincount(task.labels_N[task.pool], minlength=task.num_classes)
    return {
        "dataset": dataset.id,
        "digest": dataset.digest,
        "splits": {"train": len(task.train), "val": len(task.val), "test": len(test)},
        "num_classes": task.num_classes,
        "images_per_class_median": float(np.median(counts)),
        "images_per_class_min": int(counts.min()),
        "leakage": leaks,
    }


def _moved(candidate: Candidate) -> dict[str, Any]:
    """What of the backbone's parameters moved into the model, and what was trained."""
    trained = 0 if candidate.shared else candidate.trained_params
    return {
        "mapped": candidate.backbone.num_params,
        "frozen": candidate.backbone.num_params - min(trained, candidate.backbone.num_params),
        "trained": candidate.trained_params,
        "new": candidate.head.num_params,
        "tensors": [{**asdict(row), "shape": list(row.shape)} for row in _tensors(candidate)],
    }


def _tensors(candidate: Candidate) -> tuple[Moved, ...]:
    """One row per tensor; a frozen backbone's names come from its file's header."""
    kept = candidate.moved or tuple(
        Moved(name, shape, "frozen") for name, shape in tensors.shapes(candidate.backbone.weights).items()
    )
    head = candidate.head.tensors()
    return (*kept, *(Moved(f"head.{name}", value.shape, "new") for name, value in head.items()))


def _cost(candidate: Candidate, compared_seconds: float, task: Task) -> dict[str, Any]:
    extraction = candidate.extraction
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "transfer_seconds": round(candidate.seconds, 3),
        "baselines_seconds": round(compared_seconds, 3),
        "total_seconds": round(task.context.reporter.elapsed_seconds, 3),
        "images_cached": extraction.num_cached if extraction else None,
        "images_extracted": extraction.num_extracted if extraction else None,
        "extraction_seconds": round(extraction.seconds, 3) if extraction else None,
        "trained_params": candidate.trained_params,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "device": task.context.device,
        "precision": features.precision(task.context),
    }


def _why(outcome: Outcome) -> str:
    kept = [decision for decision in outcome.decisions if decision.outcome == "served"]
    return kept[-1].reason if kept else "it is what the recipe asked for"


def without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A row but for one of its keys."""
    return {key: value for key, value in row.items() if key != name}


def _predictions(
    index: Index, test: Rows, labels_T: NDArray[np.int64], tested: _Tested, names: tuple[str, ...]
) -> Predictions:
    return Predictions(
        ids=[value.decode() for value in index.ids[test]],
        sha256=[value.decode() for value in index.sha256[test]],
        labels=[names[label] for label in labels_T],
        predicted=[names[label] for label in tested.predicted_T],
        splits=["test"] * len(test),
        probabilities=tested.probabilities_TC.astype(np.float32),
    )
