"""A published version on images without labels: what it calls them, and the accuracy that its confidence lets estimate.

Known answers are those of the version's own predictions (`predictions.parquet`), of items that taught it nothing. Items
that are asked about are no known ones, and none that the version surely has met: it would be too sure of them.

Shape legend: K items with known answers, N items that are asked about, C classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import bundle, predicted
from app.artifact.predicted import Predictions
from worker.attempt.context import RunContext
from worker.contract.adaptation import Confidence
from worker.contract.task import Rows
from worker.data.samples import Index
from worker.evaluate import estimate, versions
from worker.evaluate.estimate import negative_entropy
from worker.overlap import matches
from worker.overlap.copies import Gallery, Pictures
from worker.overlap.matches import Matches
from worker.scores import intervals
from worker.studies.served_version import ServedVersion

NO_LABELS = "the dataset has no labels; see `estimate`"
ASKED_TOO = (
    "; {num} items that the version's own report has scored are among those that are asked about, and an answer that "
    "is known needs no estimate: ask about images without them"
)
# Bounds that an interval of a labelled dataset has.
METRICS = (*versions.METRICS, *(f"{name}_{end}" for name in intervals.METRICS for end in ("low", "high")))


def answer(context: RunContext, side: ServedVersion, index: Index, rows: Rows) -> dict[str, Any]:
    """What one version says of images that nobody has labelled.

    Returns:
        `result` and `metrics`.
    """
    said_NC = side.probabilities(context, index, rows, (f"evaluate {side.name}", 0.05, 0.9))
    own = context.document.dataset
    assert own is not None
    met = (
        None
        if side.seen is None
        else matches.match(Pictures(index, rows), side.seen, Gallery(context, {own.id: index}))
    )
    made, reason = estimated(context, side, index, rows, said_NC, None, met)
    flat = {
        "estimated_accuracy": made and made["value"],
        "estimated_accuracy_low": made and made["low"],
        "estimated_accuracy_high": made and made["high"],
        "num_items": len(rows),
    }
    counts_C = np.bincount(said_NC.argmax(1), minlength=len(side.spec.labels))
    result = {
        "mode": context.document.inputs["mode"],
        "dataset": {"id": own.id, "digest": own.digest},
        "labelled": False,
        "split": context.document.inputs["split"],
        "num_items": len(rows),
        **side.described(),
        "metrics": dict.fromkeys(METRICS) | flat,
        "not_computed": {f"metrics.{name}": NO_LABELS for name in METRICS} | reason,
        "estimate": made,
        "predicted": [
            {"label": label, "num_items": int(count)} for label, count in zip(side.spec.labels, counts_C, strict=True)
        ],
        "leakage": {"num_items": len(rows), "num_any": None if met is None else int(met.sure_T.sum())},
        "against": None,
        "comparison": None,
    }
    _announce(context, side, result)
    return {"result": result, "metrics": flat}


def estimated(
    context: RunContext,
    side: ServedVersion,
    index: Index,
    rows: Rows,
    said_NC: NDArray[np.floating],
    right_N: NDArray[np.bool_] | None,
    met: Matches | None,
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The estimate, and for `not_computed` why there is none.

    Args:
        context: of the job.
        side: the version.
        index: of the dataset.
        rows: that were asked about.
        said_NC: of the version.
        right_N: by labels, if there are any: measured beside it, and not read for it.
        met: what the version knew of these items; None where nobody knows.
    """
    fresh_N = np.ones(len(rows), bool) if met is None else ~met.sure_T
    known = predicted.read(context.storage.fetch(f"{side.prefix}/{bundle.PREDICTIONS}"))
    sure = _confidence(known, {one.decode() for one in index.sha256[rows]}, said_NC[fresh_N])
    found = None if right_N is None or not fresh_N.any() else float(right_N[fresh_N].mean())
    made, reason = estimate.section(sure, context.document.seed, found)
    if made is not None:
        return made, {}
    num_asked = sum(label is not None for label in known.labels) - len(sure.known_K)
    return None, {"estimate": reason + (ASKED_TOO.format(num=num_asked) if num_asked else "")}


def _confidence(known: Predictions, asked: set[str], said_MC: NDArray[np.floating]) -> Confidence:
    pairs = zip(known.labels, known.sha256, strict=True)
    usable_K = np.array([label is not None and digest not in asked for label, digest in pairs], bool)
    right_K = np.array([one == other for one, other in zip(known.labels, known.predicted, strict=True)], bool)
    _, labels_K = np.unique(np.array([str(label) for label in known.labels])[usable_K], return_inverse=True)
    return Confidence(
        negative_entropy(known.probabilities[usable_K]), right_K[usable_K], negative_entropy(said_MC), labels_K
    )


def _announce(context: RunContext, side: ServedVersion, result: dict[str, Any]) -> None:
    made = result["estimate"]
    if made is None:
        reason = result["not_computed"]["estimate"]
        context.reporter.log(f"{side.name}: no accuracy can be estimated without labels: {reason}", "warning")
        return
    context.reporter.metric(
        f"{side.name}: accuracy estimated at {made['value']:.3f} ({made['low']:.3f} to {made['high']:.3f}) on "
        f"{result['num_items']} items without labels, {made['known_accuracy']:.3f} where answers are known",
        **{name: value for name, value in result["metrics"].items() if value is not None},
    )
    context.reporter.log(made["warning"], "warning")
