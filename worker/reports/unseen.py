"""The report of a zero-shot transfer: mostly what is not known, and why. Torch-free.

There are no images of unseen classes, so nothing says how good the model is on them. Where the job's dataset holds some
of the model's classes, those are scored on its test split, among all of the model's classes, and every figure says
`seen`: it must not be taken for the accuracy of the model.

Shape legend: T test items, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.candidate import Candidate
from worker.contract.task import Float, Rows, Task
from worker.evaluate import feature_map, flags, sections, supplement
from worker.evaluate.feature_map import Group
from worker.evaluate.sections import MIN_ECE_ITEMS, Evaluation, score
from worker.evaluate.supplement import Items, Reasons
from worker.scores import calibration, intervals, metrics

Double = NDArray[np.float64]

NOTHING_LEARNED = "nothing was learned from labelled images of these classes"
NO_BASELINE = "a baseline needs images of the classes"
NOTHING_KNOWN = "no images of all classes have known answers, to tell by how sure the model is when it is right"
WHAT = "no figure for classes without images; upload some and ask for predictions to have one"
NOTE = (
    "by name: the backbone's weights were taught a class of the very name, and for it this is no zero-shot transfer if "
    "both mean the same; all others are guesses from words: its singular or plural (plural), a name that the text "
    "encoder takes for the same (text), a word for kinds of which at least so many were taught (includes), a whole "
    "word of two names in common (part); a class that is not listed may still be known under another name"
)
NOTE_CAPTIONS = (
    "the backbone learned from captioned images of the web, and nobody lists what they show; these have a name of "
    "ImageNet's, or are guessed from words of one, but any other may have been seen too: here zero-shot only means "
    "that this job saw no image of them"
)
BESIDE = ("worst_class", "worst_group", "feature_distortion", "robustness", "out_of_distribution", "feature_map")
COMPARED = ("verdict", "verdicts.vs_frozen", "verdicts.vs_scratch", "gain")
SCORES = ("accuracy", "macro_f1", "macro_recall")


def evaluate(task: Task, candidate: Candidate, test: Rows) -> Evaluation:
    """Scores the seen classes on the test split, where there are some.

    Args:
        task: the data; label -1 for what the model has no class of.
        candidate: what is to be published.
        test: rows of the test split.
    """
    others = _others(task, test)
    test = test[task.labels_N[test] >= 0]
    features_TD = candidate.features(test) if len(test) else np.empty((0, candidate.backbone.feature_dim), np.float32)
    probabilities_TC = candidate.head.probabilities(features_TD)
    flat, rows, confusion, errors = _scored(task, probabilities_TC, test) if len(test) else ({}, [], None, {})
    beside: dict[str, Any] = dict.fromkeys(BESIDE)
    missing, flagged = dict.fromkeys(BESIDE, WHAT), list[flags.Flag]()
    if len(test):
        beside, missing, flagged = _beside(task, candidate, test, features_TD, probabilities_TC, others)
    details = dict(candidate.details)
    exposed = details.pop("exposure")
    decisions = details.pop("decisions", [])
    exposure = {
        "label_set": "ImageNet-1k",
        "classes": exposed,
        "note": NOTE_CAPTIONS if details["approach"] == "clip" else NOTE,
    }
    document: dict[str, Any] = {
        "job": task.context.document.id,
        "flags": flagged,
        "verdict": None,
        "verdicts": {"vs_frozen": None, "vs_scratch": None, "vs_source_only": None},
        "served": sections.served(candidate, details.get("chosen_by", "it needs no image of any class")),
        "metrics": flat,
        "measured": "seen classes only, on the test split" if len(test) else WHAT,
        "baselines": {"frozen": None, "scratch": None, "source_only": None},
        "baselines_skipped": dict.fromkeys(("frozen", "scratch"), NO_BASELINE),
        "gain": None,
        "per_class": rows,
        "confusion": confusion,
        "calibration": {"calibrated": False, "temperature": candidate.head.temperature, **errors},
        **beside,
        "backbone_exposure": exposure,
        "estimate": None,
        "domain": None,
        "curve": None,
        "forecast": None,
        "forecast_skipped": "there are no labelled images of all classes to foretell from",
        "mapping": sections.mapping(candidate),
        "data": _data(task, len(test), exposure),
        "cost": sections.cost(task, candidate),
        "decisions": decisions,
        "details": details,
        "not_computed": {
            **missing,
            **dict.fromkeys(COMPARED, NO_BASELINE),
            "curve": NOTHING_LEARNED,
            "estimate": NOTHING_KNOWN,
        },
    }
    labels_T = task.labels_N[test].tolist()
    predicted = sections.predictions(task.index, test, labels_T, probabilities_TC, task.class_names)
    return Evaluation(flat, document, predicted, features_TD)


def _scored(
    task: Task, probabilities_TC: Double, test: Rows
) -> tuple[dict[str, float | int | None], list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Flat metrics, rows by class, confusion and calibration errors of the seen classes."""
    labels_T = task.labels_N[test]
    scores = metrics.classification(probabilities_TC, labels_T, task.class_names)
    bounds = intervals.of_scores(labels_T, probabilities_TC.argmax(1), task.num_classes)
    values = scores.flat()
    flat: dict[str, float | int | None] = {f"test_seen_{name}": values[name] for name in SCORES}
    told = intervals.bounds(bounds, "test_seen_")
    flat |= {f"test_seen_{name}_{end}": told[f"test_seen_{name}_{end}"] for name in SCORES for end in ("low", "high")}
    flat["num_test_seen"] = len(test)
    rows = sections.per_class(scores)
    found = calibration.calibration(probabilities_TC, labels_T)
    errors = {"ece": found.ece if len(test) >= MIN_ECE_ITEMS else None, "brier": found.brier, "nll": found.nll}
    return flat, rows, scores.confusion(), errors


def _others(task: Task, test: Rows) -> Rows:
    """Test items of the dataset's classes that the model does not have; what has no label at all is none of them."""
    given = np.asarray(task.index.label, np.int64)[test]
    return test[(given >= 0) & (task.labels_N[test] < 0)]


def _beside(
    task: Task, candidate: Candidate, test: Rows, feats_TD: Float, probabilities_TC: Double, others: Rows
) -> tuple[dict[str, Any], Reasons, list[flags.Flag]]:
    """What the seen classes' items allow beside their scores, and the flags."""
    labels_T = task.labels_N[test]
    scored = score(probabilities_TC, labels_T)
    items = Items(test, labels_T, scored, feats_TD)
    others_MD = candidate.features(others) if len(others) else feats_TD[:0]
    per_class = metrics.classification(probabilities_TC, labels_T, task.class_names).per_class
    beside, missing = supplement.of_items(task, items, per_class)
    shown = feature_map.part(len(test), task.seed), feature_map.part(len(others), task.seed)
    groups = [
        Group("test, seen classes", len(test), feats_TD[shown[0]], labels_T[shown[0]], scored.correct_T[shown[0]])
    ]
    if len(others):
        none = np.full(len(shown[1]), -1)
        groups.append(Group("test, other classes", len(others), others_MD[shown[1]], none))
    beside["feature_map"] = feature_map.feature_map(groups, task.class_names, "pooled features of the backbone")
    missing |= intervals.reasons(labels_T, "metrics.test_seen_")
    if len(test) < MIN_ECE_ITEMS:
        missing["calibration.ece"] = f"needs {MIN_ECE_ITEMS} scored items; found {len(test)}"
    flagged = supplement.no_better(task, candidate.selection, items, "test split, seen classes")
    return beside, missing, flagged


def _data(task: Task, num_test: int, exposure: dict[str, Any]) -> dict[str, Any] | None:
    dataset = task.context.document.dataset
    if dataset is None:
        return None
    return {
        "dataset": dataset.id,
        "digest": dataset.digest,
        "splits": {"train": len(task.train), "val": len(task.val), "test": num_test},
        "num_classes": task.num_classes,
        "exposure": exposure,
    }
