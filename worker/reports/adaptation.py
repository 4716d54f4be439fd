"""The report of an adaptation: the served model and the source alone on the same items of the target.

Target labels are met here for the first time, unless they were learned from. Where they only score, the verdict words
the paired interval on the scored items, since there is no other labelled item; it chose nothing. Where they were
learned from, it words the interval on the target's training items, out of fold, and the test split only reports.

Shape legend: T scored items, C classes.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.adaptation import Adaptation
from worker.contract.candidate import Candidate
from worker.contract.outcome import Outcome
from worker.contract.task import Float, Task
from worker.domains.two_domains import Truth
from worker.evaluate import estimate, feature_map, flags, sections, supplement
from worker.evaluate.feature_map import Group
from worker.evaluate.sections import Evaluation, Scored, score
from worker.evaluate.supplement import NO_LABELS, Items
from worker.reports import lineage
from worker.scores import intervals, metrics

SCORES = (
    "test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_macro_f1", "test_macro_recall",
    "source_only_accuracy", "domain_distance", "ece",
)  # fmt: skip
SCORED = (
    "baselines.frozen", "baselines.source_only", "confusion", "data.leakage", "verdicts.vs_frozen",
    "verdicts.vs_source_only",
)  # fmt: skip
BESIDE = ("worst_class", "worst_group", "feature_distortion", "robustness", "out_of_distribution", "calibration")
NO_CURVE = "it is drawn for recipes on one labelled dataset"
LEARNED_FROM = "labels of the target were learned from, and its accuracy is measured"
NO_FALLBACK = "the source alone is among what was chosen from: it is served where nothing was better"
NO_SCRATCH = "an adaptation is compared with the source alone"
NO_VAL = "none of the target's images is held out to choose by; see source_val_accuracy"
WHAT = "the linear probe of the source, as it is, on the same items of the target"


def evaluate(task: Task, outcome: Outcome, truth: Truth) -> Evaluation:
    """Scores the served model where the target has labels, and tells how it was chosen."""
    found, served = outcome.adaptation, outcome.candidate
    assert found is not None
    rows = truth.scored
    labels_T = truth.labels_N[rows]
    # Of all images where nothing is scored. Whoever stands on the shared graph sees the same features: read once.
    shown = rows if len(rows) else np.setdiff1d(np.arange(len(task.index)), task.left_out)
    by_shared = {one.candidate.shared: one.candidate for one in found.tried}
    features = {shared: one.features(shown) for shared, one in by_shared.items()}
    said_TC = served.head.probabilities(features[served.shared])
    ours = score(said_TC, labels_T) if len(rows) else None
    theirs = (
        ours
        if served is found.source_only or not len(rows)
        else score(found.source_only.head.probabilities(features[found.source_only.shared]), labels_T)
    )
    scores = ours and metrics.classification(ours.probabilities_TC, labels_T, task.class_names)
    calibrated = ours and sections.calibrated(task, served, ours.probabilities_TC, labels_T)
    flat: dict[str, float | int | None] = dict.fromkeys(SCORES)
    if ours and theirs and scores and calibrated:
        flat |= {f"test_{name}": value for name, value in scores.flat().items()}
        flat |= intervals.bounds(ours.bounds, "test_")
        flat |= {"source_only_accuracy": float(theirs.correct_T.mean()), "ece": calibrated["ece"]}
    folds = served.fold_accuracy
    before = found.domain.get("before")
    flat |= {
        "domain_distance": before and before["proxy_a"],
        "source_val_accuracy": found.source_val_accuracy,
        "val_accuracy": None,
        "cv_accuracy_mean": float(np.mean(folds)) if folds else None,
        "cv_accuracy_std": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        "num_test": len(rows),
    }
    unchanged = sections.is_same(found.source_only, served)
    evidence = None if unchanged else _evidence(task, served, found, ours, theirs, truth)
    # The frozen baseline is the source's probe: both names mean the same here.
    verdicts = {"vs_frozen": evidence, "vs_scratch": None, "vs_source_only": evidence}
    baseline = theirs and sections.baseline(theirs, WHAT)
    items, beside, missing = None, dict.fromkeys(BESIDE), dict.fromkeys((*BESIDE, *SCORED), NO_LABELS)
    if ours and scores and calibrated:
        frozen = None if served.shared else features[True]
        items = Items(rows, labels_T, ours, features[served.shared], frozen)
        beside, missing = supplement.of_items(task, items, scores.per_class)
        calibrated["risk_coverage"], unsure = supplement.confidence(ours)
        missing |= unsure | intervals.reasons(labels_T, "metrics.test_")
    if unchanged:
        # The frozen probe is the source's here.
        missing |= sections.itself({"vs_source_only": True}, "source_only")
        missing["verdicts.vs_frozen"] = missing["verdicts.vs_source_only"]
    if not ours:
        missing |= {f"metrics.{name}": NO_LABELS for name in SCORES if name != "domain_distance"}
    if not unchanged and not evidence:
        missing |= dict.fromkeys(("verdict", "gain"), NO_LABELS)
    exposed, unknown = supplement.known_classes(task, served, task.class_names)
    met = lineage.meet(task, lineage.teachers(task, served)[0], rows) if ours else None
    leaks = sections.leaks(met, None, ours.correct_T) if met and ours else None
    data = {**_data(task, truth, leaks), "exposure": exposed}
    told, untold = _estimate(task, found, served, float(ours.correct_T.mean()) if ours else None)
    missing |= {} if told else {"estimate": untold}
    why = next(one.reason for one in reversed(outcome.decisions) if one.outcome == "served")
    document = {
        "job": task.context.document.id,
        "flags": flags.some_of(
            supplement.no_better(task, served.selection, items, truth.what),
            flags.negative({"vs_source_only": evidence}),
            flags.of_test(data["leakage"]),
            flags.of_images(served.details),
        ),
        "verdict": evidence and evidence["verdict"],
        "verdicts": {name: found and found["verdict"] for name, found in verdicts.items()},
        "verdict_evidence": verdicts,
        "served": sections.served(served, why),
        "fallback": None,
        "metrics": flat,
        "baselines": {"frozen": baseline, "scratch": None, "source_only": baseline},
        "baselines_skipped": {"scratch": NO_SCRATCH},
        "gain": sections.gain(ours, theirs, "source_only") if ours and theirs and not unchanged else None,
        "per_class": sections.per_class(scores) if scores else [],
        "confusion": scores.confusion() if scores else None,
        "most_confused": scores.most_confused if scores else [],
        "calibration": calibrated,
        **beside,
        "estimate": told,
        "feature_map": _map(task, found, truth),
        "domain": {**found.domain, "candidates": _candidates(found, served, features, labels_T)},
        "curve": None,
        "forecast": None,
        "forecast_skipped": "what labels of another domain give here cannot be foretold",
        "mapping": sections.mapping(served),
        "data": data,
        "cost": sections.cost(task, served),
        "decisions": [asdict(decision) for decision in outcome.decisions],
        "details": served.details,
        "not_computed": {
            **missing,
            **unknown,
            "verdicts.vs_scratch": NO_SCRATCH,
            "metrics.val_accuracy": NO_VAL,
            "curve": NO_CURVE,
            "fallback": NO_FALLBACK,
        },
    }
    alone = None if theirs is ours else theirs
    predicted = sections.predictions(
        task.index, shown, truth.labels_N[shown].tolist(), said_TC, task.class_names, {"source_only": alone}
    )
    return Evaluation(flat, document, predicted, features[served.shared], met)


def _evidence(
    task: Task, served: Candidate, found: Adaptation, ours: Scored | None, theirs: Scored | None, truth: Truth
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
    return sections.evidence(a, b, what)


def _estimate(
    task: Task, found: Adaptation, served: Candidate, accuracy: float | None
) -> tuple[dict[str, Any] | None, str]:
    """Accuracy on the target without its labels; what was found with them stands beside it."""
    confidence = next((one.confidence for one in found.tried if one.candidate is served), None)
    if confidence is None:
        return None, LEARNED_FROM
    return estimate.section(confidence, task.seed, accuracy)


def _candidates(
    found: Adaptation, served: Candidate, features: dict[bool, Float], labels_T: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """What the validator saw of each candidate; and, computed after the choice, how right each would have been."""
    return [
        {
            "name": one.candidate.name,
            "served": one.candidate is served,
            **one.scores,
            "oracle_accuracy": float(
                (one.candidate.head.logits(features[one.candidate.shared]).argmax(1) == labels_T).mean()
            )
            if len(labels_T)
            else None,
        }
        for one in found.tried
    ]


def _map(task: Task, found: Adaptation, truth: Truth) -> dict[str, Any] | None:
    """Both domains before and after, each in the plane of its own; the target's labels only colour its points."""
    spaces = found.spaces
    if spaces is None or task.source is None:
        return None
    labels = (task.source.labels_N[spaces.source_rows], truth.labels_N[spaces.target_rows])
    sizes = (len(task.source.pool), len(task.pool))

    def drawn(feats: tuple[Float, Float], what: str) -> dict[str, Any] | None:
        groups = [Group(*one) for one in zip(("source", "target"), sizes, feats, labels, strict=True)]
        return feature_map.feature_map(groups, task.class_names, what)

    before = drawn(spaces.before, "pooled features of the backbone")
    after = spaces.after and drawn(spaces.after, "features as the served head sees both domains")
    return before and {**before, "after": after}


def _data(task: Task, truth: Truth, leaks: dict[str, Any] | None) -> dict[str, Any]:
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
        "leakage": leaks,
        "scored": truth.what if len(truth.scored) else "nothing: the target has no labels",
    }
