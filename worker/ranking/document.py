"""What a ranking answers: the document of its result, and the reasons in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.attempt.progress import Reporter
from worker.ranking import expected
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
    "with a prior by ImageNet accuracy; `expected_accuracy` is measured over folds and has the interval, so it may be "
    "higher for a candidate that stands lower, `tied` or not: `score` alone decides (neighbours count in it, a fold "
    "costs the probe its images, and both have luck); among those that are `tied` the order says nothing"
)
ABOVE = (
    "its expected_accuracy is above that of the first ({own:.3f} against {first:.3f}), which decides nothing: that is "
    "a ridge probe alone, out of folds; the score is neighbours and ridge, each image left out alone, with the prior"
)
# Images of the median class below which an accuracy hardly says more than its interval.
FEW_PER_CLASS = 5

Ranked = Sequence[tuple[Contender, Place]]


def answer(reporter: Reporter, ranked: Ranked, data: Data, ledger: Ledger) -> dict[str, Any]:
    """`result` for the study and flat `metrics` for the job; the order and its flags become events."""
    rows: list[dict[str, Any]] = []
    for number, (one, place) in enumerate(ranked, 1):
        ledger.decide(one, "order", f"place {number}", one.reasons[one.stage], score=place.score)
        row = candidate(one, number, place, data)
        rows.append(row | {"reason": row["reason"] + _expected_above(row, rows)})
    found = [*ledger.notes, *flags(ranked, data, ledger.skipped)]
    for flag in found:
        reporter.log(flag, "warning")
    best, seconds = rows[0]["expected_accuracy"], round(reporter.elapsed_seconds, 3)
    metrics = {
        "num_candidates": len(rows),
        "num_skipped": len(ledger.skipped),
        "expected_accuracy": best["value"],
        "expected_accuracy_low": best["low"],
        "expected_accuracy_high": best["high"],
        "seconds": seconds,
    }
    told = f"{best['value']:.3f} ({best['low']:.3f} to {best['high']:.3f}) expected"
    reporter.metric(f"{rows[0]['backbone']} is first: {told}", **metrics)
    result = {
        "candidates": rows,
        "skipped": ledger.skipped,
        "order": ORDER,
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


def _expected_above(row: dict[str, Any], better: Sequence[dict[str, Any]]) -> str:
    """Why a candidate stands below the first one that is expected to reach less; empty where none of that is so."""
    if not better or better[0]["stage"] != row["stage"]:
        return ""
    own, first = (one["expected_accuracy"]["value"] for one in (row, better[0]))
    return f"; {ABOVE.format(own=own, first=first)}" if own > first else ""


def expected_accuracy(look: Look, data: Data) -> dict[str, Any]:
    """What a linear probe would reach on new images like these."""
    found = interval(look, data)
    num_folds = look.evidence.num_folds
    learned = round(len(look.rows) * (num_folds - 1) / num_folds)
    how = "bootstrap over pictures" if found.method == "bootstrap" else "exact binomial"
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "what": f"accuracy of a ridge probe on frozen features of {len(look.rows)} images, each left out with its "
        f"whole fold of {num_folds} (so learned from about {learned}); 95 % interval by {how}, copies of one picture "
        "counted once: what other images of this kind would give, not what other images to learn from would",
    }


def interval(look: Look, data: Data) -> Interval:
    """Accuracy out of folds."""
    return expected.accuracy(look.evidence.folds_N, data.groups(look.rows), data.seed)


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


def flags(ranked: Ranked, data: Data, skipped: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing the order.

    Args:
        ranked: best first.
        data: of the ranking.
        skipped: steps that were not done.
    """
    found, known = [], facts(data)
    best = max(interval(one.stages[one.stage], data).low for one, _ in ranked)
    if best <= known["largest_class_share"]:
        found.append(
            "no candidate is better than always naming the largest class "
            f"({known['largest_class_share']:.3f} of the images; best lower bound {best:.3f}): check the labels, add "
            "images, or fine-tune"
        )
    alike = [one.name for one, place in ranked if place.within and one.stage == ranked[0][0].stage]
    if len(alike) > 1:
        found.append(f"cannot be told apart on these images, take the fastest or the smallest: {', '.join(alike)}")
    first = ranked[0][0]
    values = {one.name: interval(one.stages[one.stage], data).value for one, _ in ranked if one.stage == first.stage}
    above = [name for name, value in values.items() if value > values[first.name]]
    if above:
        found.append(
            f"{', '.join(above)}: an expected accuracy above that of {first.name}, which stands first: the order goes "
            "by `score`, see `order` and the intervals"
        )
    if known["images_per_class_median"] < FEW_PER_CLASS:
        found.append(
            f"only {known['images_per_class_median']:g} images in the median class: the prior counts for much; add "
            "images"
        )
    if skipped:
        names = ", ".join(dict.fromkeys(one["backbone"] for one in skipped))
        found.append(f"not everything was done, see `skipped`: {names}")
    return found


def compared(place: Place, rivals: Ranked) -> str:
    """How a candidate stands beside the first of those that saw the same images."""
    first, best = rivals[0]
    if place is best:
        num_images = len(first.stages[first.stage].rows)
        return (
            f"first of {len(rivals)} on {num_images} images: {place.accuracy:.3f} by neighbours and ridge, "
            f"{place.score:.3f} with the prior, which weighs {place.weight:.3f}"
        )
    verdict = "not to be told apart from it" if place.within else "worse by more than one standard error"
    return (
        f"{place.score:.3f}, {place.behind:.3f} behind {first.name}, standard error of the difference "
        f"{place.standard_error:.3f}: {verdict}"
    )
