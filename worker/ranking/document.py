"""What a ranking answers: the document of its result, and the reasons in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.attempt.progress import Reporter
from worker.contract.candidate import BLIND
from worker.ranking import contradiction, evidence, expected
from worker.ranking.contender import Contender, Data, Look
from worker.ranking.ledger import Ledger
from worker.ranking.order import Place
from worker.scores.intervals import Interval

WARNING = (
    "logme, nleep, h_score, nce and leep are for information and order nothing: a static list by ImageNet accuracy "
    "ranks better than LogME, LEEP's first choice loses 2.7 points on average, and the accuracy of neighbours on the "
    "data beats 23 such scores over 42,000 runs (arXiv 2503.18528)."
)
ORDER = (
    "by `score`: the share of images that neighbours and a ridge regression name right, each image left out alone, "
    "with a prior by ImageNet accuracy; `expected_accuracy` is of ridge alone, out of whole folds, and has the "
    "interval; a candidate that is expected to reach more than one above it says why in its `reason`; among those that "
    "are `tied` the order says nothing"
)
BY_NAME = f"by accuracy on ImageNet alone, nothing was measured here: {BLIND}"
NO_NEIGHBOURS = "all other pictures are neighbours, so a vote of the nearest says nothing; add images"
# Images of the median class below which an accuracy hardly says more than its interval.
FEW_PER_CLASS = 5

Ranked = Sequence[tuple[Contender, Place]]


def answer(reporter: Reporter, ranked: Ranked, data: Data, ledger: Ledger) -> dict[str, Any]:
    """`result` for the study and flat `metrics` for the job; the order and its flags become events."""
    rows: list[dict[str, Any]] = []
    for number, (one, place) in enumerate(ranked, 1):
        ledger.decide(one, "order", f"place {number}", one.reasons[one.stage], score=place.score)
        row = candidate(one, number, place, data)
        told = contradiction.explained(row, rows)
        rows.append(row | {"reason": "; ".join(filter(None, [row["reason"], told])), "not_computed": not_computed(row)})
    found = [*ledger.notes, *flags(ranked, rows, data, ledger.skipped)]
    for flag in found:
        reporter.log(flag, "warning")
    best, seconds = rows[0]["expected_accuracy"], round(reporter.elapsed_seconds, 3)
    metrics = {
        "num_candidates": len(rows),
        "num_skipped": len(ledger.skipped),
        "expected_accuracy": best and best["value"],
        "expected_accuracy_low": best and best["low"],
        "expected_accuracy_high": best and best["high"],
        "seconds": seconds,
    }
    told = f"{best['value']:.3f} ({best['low']:.3f} to {best['high']:.3f}) expected" if best else BY_NAME
    reporter.metric(f"{rows[0]['backbone']} is first: {told}", **metrics)
    result = {
        "candidates": rows,
        "skipped": ledger.skipped,
        "order": ORDER if best else BY_NAME,
        "warning": WARNING,
        "flags": found,
        "data": facts(data),
        "seconds": seconds,
    }
    return {"result": result, "metrics": metrics}


def candidate(contender: Contender, rank: int, place: Place, data: Data) -> dict[str, Any]:
    """One row of the ranking."""
    look = contender.stages[contender.stage]
    backbone = contender.backbone
    return {
        "rank": rank,
        "backbone": contender.name,
        "expected_accuracy": expected_accuracy(look, data),
        "score": place.score,
        # Not worse than the first of its stage by more than one standard error.
        "tied": place.within,
        "behind": {"value": place.behind, "standard_error": place.standard_error},
        "scores": look.evidence.scores,
        "prior": {"imagenet_top1": contender.top1, "expected": place.expected, "weight": place.weight},
        "information": contender.information,
        "latency_ms": contender.latency_ms,
        "images_per_second": 1.0 / contender.seconds_per_image,
        "size_bytes": backbone.graph.stat().st_size,
        "num_params": backbone.num_params,
        "feature_dim": backbone.feature_dim,
        "licence": backbone.licence,
        "stage": contender.stage,
        "num_images": len(look.rows),
        "seconds": round(contender.seconds, 3),
        "reason": "; ".join([contender.reasons[contender.stage], *contender.notes]),
    }


def expected_accuracy(look: Look, data: Data) -> dict[str, Any] | None:
    """What a linear probe would reach on new images like these; None where no image could be named right."""
    found, share = interval(look, data), float(look.evidence.can_be_right_N.mean())
    if found is None:
        return None
    num_folds, num_draws = look.evidence.num_folds, len(look.evidence.folds_RN)
    learned = round(len(look.rows) * (num_folds - 1) / num_folds)
    how = "bootstrap over pictures and draws" if found.method == "bootstrap" else "exact binomial"
    alone = int((~look.evidence.can_be_right_N).sum())
    told = (
        f"; {alone} of these images are of classes with one picture and cannot be named right when left out: they are "
        "not in the value, count as wrong at the lower bound and as right at the upper"
    )
    return {
        "value": found.value,
        "low": share * found.low,
        "high": share * found.high + 1.0 - share,
        "what": f"accuracy of a ridge probe on frozen features of {len(look.rows)} images, each left out with its "
        f"whole fold of {num_folds} (so learned from about {learned}), mean of {num_draws} draws of the folds; 95 % "
        f"interval by {how}, copies of one picture counted once: what other images of this kind would give, not what "
        f"other images to learn from would{told if alone else ''}",
    }


def interval(look: Look, data: Data) -> Interval | None:
    """Accuracy out of folds, of the images that can be named right."""
    counted_N = look.evidence.can_be_right_N
    if look.evidence.is_blind:
        return None
    return expected.accuracy(look.evidence.folds_RN[:, counted_N], data.groups(look.rows)[counted_N], data.seed)


def not_computed(row: dict[str, Any]) -> dict[str, str]:
    """Why a figure is null, by its path."""
    if row["expected_accuracy"] is None:
        paths = ("expected_accuracy", "score", "prior.expected", *(f"scores.{name}" for name in row["scores"]))
        return dict.fromkeys(paths, BLIND)
    return {"scores.knn_loo": NO_NEIGHBOURS} if row["scores"]["knn_loo"] is None else {}


def facts(data: Data) -> dict[str, Any]:
    """What was ranked on."""
    count_C = np.bincount(data.labels_N[data.rows], minlength=data.num_classes)
    return {
        "num_images": len(data.rows),
        "num_classes": data.num_classes,
        "images_per_class_median": float(np.median(count_C)),
        "num_images_stage_1": len(data.first),
        "largest_class_share": float(count_C.max() / count_C.sum()),
    }


def flags(ranked: Ranked, rows: Sequence[dict[str, Any]], data: Data, skipped: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing the order.

    Args:
        ranked: best first.
        rows: of the result's `candidates`, in the same order.
        data: of the ranking.
        skipped: steps that were not done.
    """
    first, best = ranked[0][0], rows[0]
    found = _measured(ranked, data)
    alike = [row["backbone"] for row in rows if row["tied"] and row["stage"] == best["stage"]]
    if len(alike) > 1:
        found.append(f"cannot be told apart on these images, take the fastest or the smallest: {', '.join(alike)}")
    above = [row["backbone"] for row in rows if contradiction.is_above(row, best)]
    if above:
        found.append(
            f"{', '.join(above)}: an expected accuracy above that of {first.name}, which stands first: the order goes "
            "by `score`, and the `reason` of each says what puts it lower"
        )
    median = facts(data)["images_per_class_median"]
    if median < FEW_PER_CLASS and best["expected_accuracy"] is not None:
        found.append(f"only {median:g} images in the median class: the prior counts for much; add images")
    if skipped:
        names = ", ".join(dict.fromkeys(one["backbone"] for one in skipped))
        found.append(f"not everything was done, see `skipped`: {names}")
    return found


def _measured(ranked: Ranked, data: Data) -> list[str]:
    """What images that cannot be named right, or that nobody names right, make of the order."""
    look = ranked[0][0].stages[ranked[0][0].stage]
    counted_N = look.evidence.can_be_right_N
    if look.evidence.is_blind:
        return [f"no accuracy could be measured, the order is that of ImageNet: {BLIND}"]
    found = []
    if not counted_N.all():
        found.append(
            f"{int((~counted_N).sum())} of {len(counted_N)} images are of classes with one picture, which are unknown "
            "when it is left out: they count neither in the order nor in accuracies; add images"
        )
    known = [one for one in (interval(one.stages[one.stage], data) for one, _ in ranked) if one is not None]
    best, share = max(one.low for one in known), _largest_share(data)
    if best <= share:
        num_pictures = len(np.unique(data.groups(look.rows)[counted_N]))
        advice = "add images, so few cannot show it"
        if num_pictures >= expected.MIN_SAMPLES:
            advice = "check the labels, add images, or fine-tune"
        found.append(
            f"no candidate is better than always naming the largest class ({share:.3f} of the images; best lower bound "
            f"{best:.3f}): {advice}"
        )
    return found


def _largest_share(data: Data) -> float:
    """Of the largest class, among the images of the ranking that can be named right."""
    labels_N, groups_N = data.labels_N[data.rows], data.groups(data.rows)
    counted_N = evidence.can_be_right(labels_N, groups_N)
    count_C = np.bincount(labels_N[counted_N])
    return float(count_C.max() / count_C.sum())


def compared(place: Place, rivals: Ranked) -> str:
    """How a candidate stands beside the first of those that saw the same images."""
    first, best = rivals[0]
    if place.score is None:
        return _by_name(place, rivals)
    if place is best:
        num_images = len(first.stages[first.stage].rows)
        return (
            f"first of {len(rivals)} on {num_images} images: {place.accuracy:.3f} by neighbours and ridge, "
            f"{place.score:.3f} with the prior, which weighs {place.weight:.3f}"
        )
    verdict = "not to be told apart from it" if place.within else "its score is worse by more than one standard error"
    return (
        f"{place.score:.3f}, {place.behind:.3f} behind {first.name}, standard error of the difference "
        f"{place.standard_error:.3f}: {verdict}"
    )


def _by_name(place: Place, rivals: Ranked) -> str:
    """How a candidate stands where only ImageNet tells them apart."""
    first, best = rivals[0]
    if place is best:
        return f"first of {len(rivals)} by accuracy on ImageNet alone: {BLIND}"
    verdict = "not to be told apart from it" if place.within else "its prior is worse by more than one standard error"
    return (
        f"expected {place.behind:.3f} behind {first.name} by accuracy on ImageNet alone, standard error of that "
        f"{place.standard_error:.3f}: {verdict}"
    )
