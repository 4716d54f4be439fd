"""Published versions on a dataset: load -> answers -> scores -> what was met before -> comparison. No torch.

Shape legend: N evaluated items.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import JobFailure
from worker import transfer
from worker.attempt.context import RunContext
from worker.contract.task import Rows
from worker.data.samples import Index
from worker.evaluate import versions
from worker.evaluate.versions import Judged
from worker.overlap import matches
from worker.overlap.copies import Gallery, Pictures
from worker.overlap.matches import Matches
from worker.reports import lineage
from worker.studies import served_version, unlabelled_study
from worker.studies.served_version import ServedVersion

UNKNOWN = (
    "the version was published without a record of what it learned from; nobody knows which items it has met; "
    "run its transfer again to have one"
)
NONE_LEFT = "every item is among what the version has learned from or seen"


def run(context: RunContext) -> dict[str, Any]:
    """Scores one or two versions.

    Returns:
        `result` and `metrics`.

    Raises:
        JobFailure: version_deleted, or dataset_invalid: no labelled item in the split.
    """
    inputs = context.document.inputs
    context.reporter.progress(0.01, "load")
    sides = [served_version.open_version(context, side) for side in inputs["sides"]]
    index = transfer.load(context, context.document.dataset)
    rows = _rows(index, inputs["split"])
    labels_N = np.asarray(index.label, np.int64)[rows]
    if not index.classes:
        return unlabelled_study.answer(context, sides[0], index, rows)
    judged, answers = [], []
    for place, side in enumerate(sides):
        stage = (f"evaluate {side.name}", *_share(0.05, 0.9, place, len(sides)))
        said = side.probabilities(context, index, rows, stage)
        judged.append(versions.judge(said, side.spec.labels, labels_N, index.classes))
        answers.append(said)
        context.reporter.check_yield()
    context.reporter.progress(0.92, "compare")
    own = context.document.dataset
    assert own is not None
    asked, gallery = Pictures(index, rows), Gallery(context, {own.id: index})
    met = [None if side.seen is None else matches.match(asked, side.seen, gallery) for side in sides]
    documents = []
    for side, one, found, said in zip(sides, judged, met, answers, strict=True):
        scored = versions.document(one)
        made, reason = unlabelled_study.estimated(context, side, index, rows, said, one.correct_N, found)
        scored["not_computed"] |= reason
        documents.append({**side.described(), **scored, "estimate": made, "leakage": _leakage(side, one, found)})
    result = {
        "mode": inputs["mode"],
        "dataset": {"id": own.id, "digest": own.digest},
        "labelled": True,
        "split": inputs["split"],
        "num_items": len(rows),
        **documents[0],
        "against": documents[1] if len(sides) > 1 else None,
        "comparison": _comparison(sides, judged, met, labels_N, index) if len(sides) > 1 else None,
    }
    _announce(context, result)
    return {"result": result, "metrics": documents[0]["metrics"]}


def _rows(index: Index, split: str) -> Rows:
    rows = np.arange(len(index)) if split == "all" else index.rows_of(split)
    if not index.classes and len(rows):
        return rows
    rows = rows[np.asarray(index.label, np.int64)[rows] >= 0]
    if not len(rows):
        raise JobFailure(
            "dataset_invalid",
            f"expected items in split {split!r}, labelled where the dataset has labels; found none; ask for split all, "
            "or add images",
        )
    return rows


def _leakage(side: ServedVersion, judged: Judged, met: Matches | None) -> dict[str, Any]:
    """Items that the version has learned from or seen, by what they were recognised; the figures without them."""
    if met is None:
        return {"num_any": None, "reason": UNKNOWN, "without": None, "unknown": None}
    any_N, learned_N = met.sure_T, met.of(labelled=True).sure_T
    counts: dict[str, Any] = {
        "num_items": len(any_N),
        "num_any": int(any_N.sum()),
        "num_learned_from": int(learned_N.sum()),
        "num_seen_without_labels": int((any_N & ~learned_N).sum()),
        **met.counts(),
        "seen_in": met.seen_in(),
        "reason": NONE_LEFT if any_N.all() else None,
        "unknown": _uploaded(side),
    }
    return counts | {"without": None if any_N.all() else versions.figures(judged.take(~any_N))}


def _uploaded(side: ServedVersion) -> str | None:
    """Why there may be more than was counted: an uploaded backbone brings no record along."""
    name = side.spec.backbone.name
    recorded = any(one.backbone == name for one in side.seen or ())
    return lineage.UPLOADED.format(name=name) if name.startswith("user/") and not recorded else None


def _comparison(
    sides: list[ServedVersion],
    judged: list[Judged],
    met: list[Matches | None],
    labels_N: NDArray[np.int64],
    index: Index,
) -> dict[str, Any]:
    known = [one for one in met if one is not None]
    unseen_N = ~np.any([one.sure_T for one in known], axis=0) if len(known) == len(met) else None
    names = (sides[0].name, sides[1].name)
    return versions.comparison(judged[0], judged[1], names, unseen_N, labels_N, index.classes)


def _announce(context: RunContext, result: dict[str, Any]) -> None:
    flat, leakage = result["metrics"], result["leakage"]
    name = f"{result['model']['name']} version {result['model']['version']}"
    context.reporter.metric(
        f"{name}: accuracy {flat['accuracy']:.3f} ({flat['accuracy_low']:.3f} to {flat['accuracy_high']:.3f}) "
        f"on {result['num_items']} items",
        **{key: value for key, value in flat.items() if value is not None},
    )
    if leakage["num_any"]:
        left = leakage["without"]
        rest = f"accuracy without them {left['accuracy']:.3f}" if left else "none is left without them"
        context.reporter.log(
            f"{name} has learned from or seen {leakage['num_any']} of {result['num_items']} items; {rest}", "warning"
        )
    if result["comparison"] is not None:
        context.reporter.log(result["comparison"]["sentence"])


def _share(begin: float, end: float, part: int, parts: int) -> tuple[float, float]:
    return begin + (end - begin) * part / parts, begin + (end - begin) * (part + 1) / parts
