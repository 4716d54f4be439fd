"""The transfer report: what the transfer gained over what, with intervals. The test split is touched here, once.

Verdicts are decided on selection data (out-of-fold or hold-out predictions); the test split only reports.

Shape legend: T test items, C classes, D features.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from worker.contract.adaptation import Confidence
from worker.contract.candidate import DATASET, SOURCE, Candidate, Selection
from worker.contract.outcome import Decision, Outcome, Scratch
from worker.contract.task import Float, Rows, Task
from worker.evaluate import estimate, flags, sections, supplement
from worker.evaluate.estimate import negative_entropy
from worker.evaluate.sections import Evaluation, Scored, score
from worker.evaluate.supplement import NO_START, UNCHANGED, Items
from worker.forecasting import curve
from worker.forecasting.forecast import Forecast
from worker.methods import reference
from worker.overlap import leakage
from worker.reports import compared, fallback, foresight, lineage, on_selection
from worker.reports.compared import Compared
from worker.reports.reasons import NO_SOURCE
from worker.scores import intervals, metrics
from worker.solvers.logits import softmax

# What there is of a source that was joined.
OF_SOURCE = ("domain", "baselines.source_only", "verdicts.vs_source_only")
# What of a full report waits for the networks from scratch where the transfer itself did not train them.
COMPARED = ("verdict", "verdicts.vs_scratch", "baselines.scratch", "curve", "seed_deviation.scratch")
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
    candidate = outcome.candidate
    # What is compared with the candidate stands on the candidate's backbone, whichever the job began with, at the
    # resolution that its graph is for, whichever the candidate was trained at.
    task = replace(task, backbone=next(one for one in task.backbones if one.digest == candidate.backbone.digest))
    found = compared.compare(task, outcome, with_scratch=compare)
    baseline, small, fair, returned = found.frozen, found.small, found.fair, found.back.returned
    ours, served = candidate.judged or candidate.selection, returned.candidate if returned else candidate
    unforeseen = made if isinstance(made, Decision) else None
    # From here on the test split is looked at.
    labels_T, test_features = task.labels_N[test], served.features(test)
    tested = score(served.head.probabilities(test_features), labels_T)

    def tested_of(one: Candidate, features_TD: Float | None = None) -> Scored:
        if one is served:
            return tested
        return score(one.head.probabilities(one.features(test) if features_TD is None else features_TD), labels_T)

    # Features of a trained graph are not kept for the training images; a source's probe has learned from none of these.
    learned_features = served.features(task.pool) if served.shared and DATASET in served.learned_from else None
    plain_features = test_features if baseline is served else baseline.features(test)
    plain = tested_of(baseline, plain_features)
    transferred = plain if candidate is baseline else tested_of(candidate)
    alone_tested = tested_of(found.alone) if found.alone else None
    is_small = returned is not None and returned.over == "scratch"
    small_tested = None if small is None else tested if is_small else score(small.predict(test), labels_T)
    scores = metrics.classification(tested.probabilities_TC, labels_T, task.class_names)
    alike = None if learned_features is None else leakage.cosine_twins(test_features, learned_features)
    taught, _ = lineage.teachers(task, served)
    met = lineage.meet(task, taught, test, test_features if served.shared else plain_features, learned_features)
    leaks = sections.leaks(met, alike, tested.correct_T)
    calibrated = sections.calibrated(task, served, tested.probabilities_TC, labels_T)
    began_at, unmoved = None if served.shared or is_small else plain_features, NO_START if is_small else UNCHANGED
    items = Items(test, labels_T, tested, test_features, began_at, learned_features, unmoved)
    beside, missing = supplement.of_items(task, items, scores.per_class)
    sure, unsure = supplement.confidence(tested)
    told, untold = estimate.section(_confidence(task, served, tested), task.seed, float(tested.correct_T.mean()))
    shown, hidden = supplement.splits_map(task, items, f"pooled features of {served.backbone.name}, as served")
    exposed, unknown = supplement.known_classes(task, served, task.class_names)
    spread, unspread = on_selection.seed_deviation(task, candidate, small)
    unheld = on_selection.unheld(task, served.selection)
    later = "" if compare else supplement.later(task)
    waits = later or ("" if small else _follows(task, outcome, ours))
    # What was foretold is what the transfer would give, whatever is served.
    foretold = foresight.sections(made, transferred.bounds["accuracy"].value, candidate, task.class_names, later)
    flat = on_selection.flat(task, served, tested, scores, calibrated["ece"], is_val_held=not unheld)
    flat |= foresight.flat(made)
    # Of an adaptation the question is what it adds to the source alone, whoever asked for it.
    over = "source_only" if candidate.method == "adapt" and found.alone else "scratch" if fair else "frozen"
    against = {"source_only": alone_tested, "scratch": small_tested, "frozen": plain}[over] or plain
    first = found.verdicts["vs_source_only" if over == "source_only" else "vs_scratch"]
    unsaid = sections.itself({"vs_frozen": baseline is candidate, "vs_source_only": found.unchanged}, over)
    if small and small.unfair:
        unsaid |= dict.fromkeys(("verdicts.vs_scratch", *(("verdict",) if over == "frozen" else ())), small.unfair)
    skipped = {} if small else {"scratch": waits or _untrained(found)}
    document = {
        "job": task.context.document.id,
        "flags": flags.some_of(
            supplement.no_better(task, served.selection if returned else ours, items, "test split"),
            flags.negative(found.verdicts, returned.over if returned else None),
            flags.of_test(leaks),
            flags.of_time(candidate.details | ({"epochs": None} if returned else {}), fair.hurried if fair else None),
        ),
        "verdict": first and first["verdict"],
        "verdicts": {name: row and row["verdict"] for name, row in found.verdicts.items()},
        "verdict_evidence": found.verdicts,
        "served": sections.served(served, returned.decision.reason if returned else _why(outcome)),
        "fallback": returned and fallback.section(returned, sections.baseline(transferred, candidate.name)),
        "metrics": flat,
        "baselines": {
            "frozen": sections.baseline(plain, baseline.name),
            "scratch": small_tested and small and sections.baseline(small_tested, small.what),
            "source_only": alone_tested and sections.baseline(alone_tested, SOURCE_ONLY),
        },
        "baselines_skipped": skipped,
        "gain": None if "gain" in unsaid else sections.gain(transferred, against, over),
        "seed_deviation": spread,
        "per_class": sections.per_class(scores),
        "confusion": scores.confusion(),
        "most_confused": scores.most_confused,
        "calibration": {**calibrated, "risk_coverage": sure},
        **beside,
        "estimate": told,
        "feature_map": shown,
        "domain": outcome.adaptation and outcome.adaptation.domain,
        "curve": _curve(task, made, small) if compare else None,
        **foretold,
        "mapping": sections.mapping(served),
        "data": {**_data(task, test, leaks), "exposure": exposed},
        "cost": sections.cost(task, candidate, found.seconds) | {"trained_params": served.trained_params},
        "decisions": [asdict(one) for one in (*foresight.placed(outcome.decisions, made), *found.decisions)],
        "details": {**candidate.details, "scratch": small.details if small else None},
        "not_computed": {
            **_uncompared(skipped, has_verdict=bool(first), has_curve=compare),
            **missing,
            **unsure,
            **hidden,
            **unknown,
            **unsaid,
            **unspread,
            **({} if foretold["forecast"] else dict.fromkeys(foresight.METRICS, foretold["forecast_skipped"])),
            **foresight.untold(made, unforeseen, has_curve=compare),
            **dict.fromkeys(_awaited(unsaid, foretold, has_curve=not later) if waits else (), waits),
            **({"domain": f"{NO_SOURCE}; {outcome.apart}"} if outcome.apart and not outcome.adaptation else {}),
            **(dict.fromkeys(OF_SOURCE, outcome.unjoined) if outcome.unjoined else {}),
            **({} if told else {"estimate": untold}),
            **({} if returned else {"fallback": found.back.reason}),
            **({"metrics.val_accuracy": unheld} if unheld else {}),
            **on_selection.blind(ours, is_frozen=baseline is candidate, has_scratch=fair is not None),
            **intervals.reasons(labels_T, "metrics.test_"),
        },
    }
    names = task.class_names
    others = {"transfer": transferred, "frozen": plain, "scratch": small_tested, "source_only": alone_tested}
    beside_served = {name: one for name, one in others.items() if one is not tested}
    predicted = sections.predictions(task.index, test, labels_T.tolist(), tested.probabilities_TC, names, beside_served)
    return Evaluation(
        flat, document, predicted, test_features, met, served, on_selection.predictions(task, ours, found.against)
    )


def _untrained(found: Compared) -> str:
    """Why there is no network from scratch."""
    return found.left_out[0].reason if found.left_out else foresight.NOT_ASKED


def _follows(task: Task, outcome: Outcome, ours: Selection) -> str:
    """What is told of a network from scratch that is trained afterwards, see `studies.scratch_later`; empty without.

    Not where it would have to learn from the same excerpt, or beside a source; and not without something to compare on.
    """
    later = supplement.later(task)
    is_alone = outcome.excerpt is None and SOURCE not in task.context.document.datasets
    return later if later and is_alone and not ours.is_blind and reference.holdouts(task, ours.rows) else ""


def _awaited(unsaid: Mapping[str, str], foretold: Mapping[str, Any], *, has_curve: bool) -> tuple[str, ...]:
    """What a follow-up fills in, beside what is null for want of a network from scratch.

    Args:
        unsaid: why there is no gain or verdict over what is itself served.
        foretold: the report's `forecast`.
        has_curve: whether the curve is there already, and what more images of a class would buy.
    """
    gain = ("gain",) if "gain" in unsaid else ()
    more_images = ("forecast.more_images",) if foretold["forecast"] else ()
    return gain if has_curve else (*gain, *COMPARED, *more_images)


def _uncompared(skipped: dict[str, str], *, has_verdict: bool, has_curve: bool) -> dict[str, str]:
    """Of `not_computed`: what is null without a network from scratch, with why there is none.

    Args:
        skipped: `baselines_skipped`; empty where there is such a network.
        has_verdict: whether there is a verdict over another baseline.
        has_curve: whether the report was asked for its curve.
    """
    paths = (path for path in COMPARED if not ((path == "verdict" and has_verdict) or (path == "curve" and has_curve)))
    return dict.fromkeys(paths, skipped["scratch"]) if skipped else {}


def _curve(task: Task, made: Forecast | Decision | None, small: Scratch | None) -> dict[str, Any] | None:
    """Of the probe on frozen features; the network from scratch has learned from all but the hold-out."""
    if not isinstance(made, Forecast) or not made.curve:
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
