"""The transfer report: what the transfer gained over what, with intervals. The test split is touched here, once.

Verdicts are decided on selection data (out-of-fold or hold-out predictions); the test split only reports.

Shape legend: T test items, C classes, D features.
"""

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from worker.contract.outcome import BLIND, Candidate, Confidence, Decision, Outcome, Scratch, Selection
from worker.contract.task import Rows, Task
from worker.evaluate import estimate, flags, sections, supplement
from worker.evaluate.estimate import negative_entropy
from worker.evaluate.sections import Evaluation, Scored, score
from worker.evaluate.supplement import Items
from worker.forecasting import curve
from worker.forecasting.forecast import Forecast
from worker.methods.reference import frozen, scratch
from worker.overlap import leakage
from worker.reports import foresight, lineage
from worker.scores import intervals, metrics
from worker.solvers.logits import softmax

# What there is of a source that was joined.
OF_SOURCE = ("domain", "baselines.source_only", "verdicts.vs_source_only")
OF_SELECTION = ("metrics.val_accuracy", "metrics.selection_accuracy", "metrics.cv_accuracy_mean")
# What of a full report waits for the networks from scratch where the transfer itself did not train them.
COMPARED = ("verdict", "verdicts.vs_scratch", "baselines.scratch", "curve")
SOURCE_ONLY = "the linear probe of the source, as it is, on the same test split"


def evaluate(
    task: Task, outcome: Outcome, test: Rows, *, compare: bool, made: Forecast | Decision | None = None
) -> Evaluation:
    """Scores the candidate on the test split and compares it with what a user could have had without it.

    Args:
        task: the data without the test split.
        outcome: the candidate, and what was compared on the way.
        test: rows of the test split.
        compare: whether the baseline from scratch and the learning curve are computed.
        made: what was foretold before training, or why there was no time for it.
    """
    began = time.monotonic()
    candidate = outcome.candidate
    # What is compared with the candidate stands on the candidate's backbone, whichever the job began with, at the
    # resolution that its graph is for, whichever the candidate was trained at.
    task = replace(task, backbone=next(one for one in task.backbones if one.digest == candidate.backbone.digest))
    baseline = outcome.frozen or frozen(task, candidate)
    learned = scratch(task, candidate, outcome.compared_by_seconds, outcome.image_seconds) if compare else None
    small = learned if isinstance(learned, Scratch) else None
    left_out = small.skipped if small else (learned,) if isinstance(learned, Decision) else ()
    unforeseen = made if isinstance(made, Decision) else None
    compared_seconds = time.monotonic() - began
    test_features = candidate.features(test)
    labels_T = task.labels_N[test]
    # Features of a trained graph are not kept for the training images.
    learned_features = candidate.features(task.pool) if candidate.shared else None
    plain_features = test_features if baseline is candidate else baseline.features(test)
    tested = score(candidate.head.probabilities(test_features), labels_T)
    plain = tested if baseline is candidate else score(baseline.head.probabilities(plain_features), labels_T)
    alone = outcome.adaptation.source_only if outcome.adaptation else None
    alone_tested = score(alone.head.probabilities(alone.features(test)), labels_T) if alone else None
    small_tested = score(small.predict(test), labels_T) if small else None
    scores = metrics.classification(tested.probabilities_TC, labels_T, task.class_names)
    alike = None if learned_features is None else leakage.cosine_twins(test_features, learned_features)
    taught, _ = lineage.teachers(task, candidate.backbone)
    met = lineage.meet(task, taught, test, test_features, learned_features)
    leaks = sections.leaks(met, alike, tested.correct_T)
    calibrated = sections.calibrated(task, candidate, tested.probabilities_TC, labels_T)
    items = Items(test, labels_T, tested, test_features, None if candidate.shared else plain_features, learned_features)
    beside, missing = supplement.of_items(task, items, scores.per_class)
    sure, unsure = supplement.confidence(tested)
    told, untold = estimate.section(_confidence(task, candidate, tested), task.seed, float(tested.correct_T.mean()))
    shown, hidden = supplement.splits_map(task, items, f"pooled features of {candidate.backbone.name}, as served")
    exposed, unknown = supplement.known_classes(task, candidate, task.class_names)
    unheld = _unheld(task, candidate.selection)
    later = "" if compare else supplement.later(task)
    foretold = foresight.sections(made, tested.bounds["accuracy"].value, candidate, task.class_names, later)
    flat = _flat(task, candidate, tested, scores, calibrated["ece"], is_val_held=not unheld) | foresight.flat(made)
    ours = candidate.judged or candidate.selection
    # A gain over a network that was stopped before it could learn would be a lie; its accuracy is shown all the same.
    fair = None if small is None or small.unfair else small
    # Where the source's probe is what is served, nothing was adapted: it would be compared with unsaid.
    unchanged = alone is not None and sections.is_same(alone, candidate)
    verdicts = {
        # Where training began at a probe of its own, both learned from the same images and meet the same others.
        "vs_frozen": None if baseline is candidate else _verdict(task, ours, candidate.start or baseline.selection),
        "vs_scratch": _verdict(task, ours, fair.selection) if fair else None,
        "vs_source_only": _verdict(task, ours, alone.selection) if alone and not unchanged else None,
    }
    # Of an adaptation the question is what it adds to the source alone, whoever asked for it.
    over = "source_only" if candidate.method == "adapt" and alone else "scratch" if fair else "frozen"
    against = {"source_only": alone_tested, "scratch": small_tested, "frozen": plain}[over] or plain
    first = verdicts["vs_source_only" if over == "source_only" else "vs_scratch"]
    unsaid = sections.itself({"vs_frozen": baseline is candidate, "vs_source_only": unchanged}, over)
    if small and small.unfair:
        unsaid |= dict.fromkeys(("verdicts.vs_scratch", *(("verdict",) if over == "frozen" else ())), small.unfair)
    skipped = {} if small else {"scratch": left_out[0].reason if left_out else later or foresight.NOT_ASKED}
    awaited = (
        *COMPARED,
        *(("gain",) if "gain" in unsaid else ()),
        *(("forecast.more_images",) if foretold["forecast"] else ()),
    )
    document = {
        "job": task.context.document.id,
        "flags": flags.some_of(
            supplement.no_better(task, ours, items, "test split"),
            flags.negative(verdicts),
            flags.of_test(leaks),
            flags.of_time(candidate.details, fair.hurried if fair else None),
        ),
        "verdict": first and first["verdict"],
        "verdicts": {name: found and found["verdict"] for name, found in verdicts.items()},
        "verdict_evidence": verdicts,
        "served": sections.served(candidate, _why(outcome)),
        "metrics": flat,
        "baselines": {
            "frozen": sections.baseline(plain, baseline.name),
            "scratch": small_tested and small and sections.baseline(small_tested, small.what),
            "source_only": alone_tested and sections.baseline(alone_tested, SOURCE_ONLY),
        },
        "baselines_skipped": skipped,
        "gain": None if "gain" in unsaid else sections.gain(tested, against, over),
        "per_class": sections.per_class(scores),
        "confusion": scores.confusion(),
        "most_confused": scores.most_confused,
        "calibration": {**calibrated, "risk_coverage": sure},
        **beside,
        "estimate": told,
        "feature_map": shown,
        "domain": outcome.adaptation and outcome.adaptation.domain,
        "curve": _curve(task, made, fair) if compare else None,
        **foretold,
        "mapping": sections.mapping(candidate),
        "data": {**_data(task, test, leaks), "exposure": exposed},
        "cost": sections.cost(task, candidate, compared_seconds),
        "decisions": [asdict(one) for one in (*foresight.placed(outcome.decisions, made), *left_out)],
        "details": {**candidate.details, "scratch": small.details if small else None},
        "not_computed": {
            **_uncompared(skipped, has_verdict=bool(first), has_curve=compare),
            **missing,
            **unsure,
            **hidden,
            **unknown,
            **unsaid,
            **({} if foretold["forecast"] else dict.fromkeys(foresight.METRICS, foretold["forecast_skipped"])),
            **({} if isinstance(made, Forecast) else foresight.untold(unforeseen, has_curve=compare)),
            **(dict.fromkeys(awaited, later) if later else {}),
            **(dict.fromkeys(OF_SOURCE, outcome.unjoined) if outcome.unjoined else {}),
            **({} if told else {"estimate": untold}),
            **({"metrics.val_accuracy": unheld} if unheld else {}),
            **_blind(ours, is_frozen=baseline is candidate, has_scratch=fair is not None),
            **intervals.reasons(labels_T, "metrics.test_"),
        },
    }
    names = task.class_names
    predicted = sections.predictions(task.index, test, labels_T.tolist(), tested.probabilities_TC, names)
    return Evaluation(flat, document, predicted, test_features, met)


def _uncompared(skipped: dict[str, str], *, has_verdict: bool, has_curve: bool) -> dict[str, str]:
    """Of `not_computed`: what is null without a network from scratch, with why there is none.

    Args:
        skipped: `baselines_skipped`; empty where there is such a network.
        has_verdict: whether there is a verdict over another baseline.
        has_curve: whether the report was asked for its curve.
    """
    paths = (path for path in COMPARED if not ((path == "verdict" and has_verdict) or (path == "curve" and has_curve)))
    return dict.fromkeys(paths, skipped["scratch"]) if skipped else {}


def _blind(selection: Selection, *, is_frozen: bool, has_scratch: bool) -> dict[str, str]:
    """Of `not_computed`: what selection data cannot tell where nothing in it could be named right."""
    if not selection.is_blind:
        return {}
    compared = (
        *(() if is_frozen else ("verdicts.vs_frozen",)),
        *(("verdict", "verdicts.vs_scratch") if has_scratch else ()),
    )
    return dict.fromkeys((*OF_SELECTION, *compared), BLIND)


def _flat(
    task: Task,
    candidate: Candidate,
    tested: Scored,
    scores: metrics.ClassificationMetrics,
    ece: float | None,
    *,
    is_val_held: bool,
) -> dict[str, float | int | None]:
    """Flat metrics; null where a number would not be honest."""
    flat: dict[str, float | int | None] = {}
    for name, value in scores.flat().items():
        flat[f"test_{name}"] = value
    flat |= intervals.bounds(tested.bounds, "test_")
    selected = candidate.selection
    right = selected.logits.argmax(1) == task.labels_N[selected.rows]
    on_val = np.isin(selected.rows, task.val)
    is_told = len(task.val) > 0 and is_val_held and not selected.is_blind
    folds = candidate.fold_accuracy
    flat |= {
        "val_accuracy": float(right[on_val].mean()) if is_told else None,
        "selection_accuracy": None if selected.is_blind else float(right.mean()),
        "cv_accuracy_mean": float(np.mean(folds)) if folds else None,
        "cv_accuracy_std": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        "ece": ece,
        "num_test": len(tested.correct_T),
    }
    return flat


def _unheld(task: Task, selected: Selection) -> str:
    """Why there is no accuracy on the validation split; empty where all of it was held out."""
    num, total = int(np.isin(task.val, selected.rows).sum()), len(task.val)
    if num == total:
        return ""
    return (
        f"{num} of {total} items of the validation split were held out, the others were learned from; see "
        "selection_accuracy, which is of all that were held out"
    )


def _curve(task: Task, made: Forecast | Decision | None, small: Scratch | None) -> dict[str, Any] | None:
    """Of the probe on frozen features; the network from scratch has learned from all but the hold-out."""
    if not isinstance(made, Forecast):
        return None
    return curve.document(made, small, task.labels_N)


def _confidence(task: Task, candidate: Candidate, tested: Scored) -> Confidence:
    """On selection data, whose answers are known, and on the test split, whose labels are not read for it."""
    selected = candidate.selection
    known_KC = softmax(selected.logits / candidate.head.temperature)
    return Confidence(
        negative_entropy(known_KC),
        known_KC.argmax(1) == task.labels_N[selected.rows],
        negative_entropy(tested.probabilities_TC),
        task.labels_N[selected.rows],
    )


def _verdict(task: Task, ours: Selection, theirs: Selection) -> dict[str, Any] | None:
    """Paired, on the selection items that both have predicted without having learned from them."""
    rows, own, other = np.intersect1d(ours.rows, theirs.rows, return_indices=True)
    if not len(rows) or ours.is_blind:
        return None
    labels = task.labels_N[rows]
    a = ours.logits[own].argmax(1) == labels
    b = theirs.logits[other].argmax(1) == labels
    found = sections.evidence(a, b, f"the transfer {ours.what}; the other {theirs.what}")
    return {**found, "optimism": ours.optimism}


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


def _why(outcome: Outcome) -> str:
    kept = [decision for decision in outcome.decisions if decision.outcome == "served"]
    if kept:
        return kept[-1].reason
    # A training may have gained nothing, and then what it began with is served.
    told = (outcome.candidate.details or {}).get("served")
    return "it is what the recipe asked for" + (f": {told}" if told else "")
