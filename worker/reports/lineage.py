"""What a version learned from, item by item, and which items it met before it was tested on them. Torch-free.

What counts as met is decided in `worker.overlap.matches`. Whoever tests on such items measures memory too.

Shape legend: T scored items.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.artifact import bundle, tensors
from app.artifact import seen as artifact
from app.artifact.seen import Seen, What
from app.storage import Storage
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.contract.candidate import DATASET, SOURCE, Candidate
from worker.contract.task import Float, Rows, Task
from worker.data.samples import Index
from worker.data.splits import SPLITS
from worker.evaluate.sections import Evaluation
from worker.overlap import matches
from worker.overlap.copies import Gallery, Pictures
from worker.overlap.matches import Matches, of_rows

UPLOADED = "backbone {name} was uploaded: what it learned from elsewhere is not known item by item"


def teachers(task: Task, served: Candidate) -> tuple[tuple[Seen, ...], str | None]:
    """What a version learned from: not every dataset that a job was given has taught what it serves.

    Args:
        task: the job's data.
        served: what is published.

    Returns:
        one set for each teacher inside of Graft, and why there may be others; None where there are none.
    """
    document = task.context.document
    found: list[Seen] = []
    not_test = np.setdiff1d(np.flatnonzero(task.index.split != SPLITS.index("test")), task.left_out)
    if task.source is not None and SOURCE in served.learned_from:
        found.append(of_rows(task.source.index, task.source.pool, "source", document.datasets[SOURCE].id))
    if document.dataset is not None and DATASET in served.learned_from:
        rows, has_labels = not_test, bool(task.index.classes)
        if task.source is not None:
            # Labels that it may not learn from are not in the task.
            rows, has_labels = task.pool, bool((task.labels_N >= 0).any())
        what: What = "dataset" if has_labels else "unlabelled"
        found.append(of_rows(task.index, rows, what, document.dataset.id))
    inherited, unknown = of_backbone(task.context, served.backbone.name)
    return (*found, *inherited), unknown


def of_backbone(context: RunContext, name: str) -> tuple[tuple[Seen, ...], str | None]:
    """What taught an own backbone; nothing, where it came with a package or from a hub.

    A public backbone's pretraining images are unknown item by item; the report's exposure names classes instead.
    """
    own = next((row for row in context.document.user_backbones if row["backbone"]["name"] == name), None)
    if own is None:
        return (), None
    if own.get("seen") is None:
        return (), UPLOADED.format(name=name)
    known = read(context.storage, own["seen"])
    return tuple(one if one.backbone else replace(one, backbone=name) for one in known), None


def read(storage: Storage, key: str) -> tuple[Seen, ...]:
    """The sets of a seen.safetensors."""
    return artifact.unpack(tensors.load(storage.fetch(key)))


def meet(
    task: Task, found: Sequence[Seen], rows: Rows, feats_TD: Float | None = None, learned_PD: Float | None = None
) -> Matches:
    """Which of some items of the job's dataset the version had met.

    Args:
        task: the job's data.
        found: what the version learned from, see `teachers`.
        rows: the items.
        feats_TD: of the items; None where there are none at hand.
        learned_PD: of the task's pool under the same backbone; None likewise.
    """
    document = task.context.document
    known = {} if document.dataset is None else {document.dataset.id: task.index}
    if task.source is not None:
        known[document.datasets["source"].id] = task.source.index
    pool = {} if learned_PD is None or document.dataset is None else {document.dataset.id: (task.pool, learned_PD)}

    def extract(index: Index, wanted: Rows) -> Float:
        return features.pooled(task.context, index, wanted, task.backbone, ("lineage", 0.9, 0.92))[0]

    return matches.match(Pictures(task.index, rows, feats_TD), found, Gallery(task.context, known, extract), pool)


def trace(task: Task, found: Sequence[Seen], unknown: str | None, evaluation: Evaluation) -> dict[str, Any]:
    """`data.lineage` of a report: how many of the tested items were met before, and where.

    Args:
        task: the job's data.
        found: what the version learned from, see `teachers`.
        unknown: why that may not be all.
        evaluation: of the tested items; those without a label test nothing.
    """
    met = evaluation.met
    if met is None:
        said = evaluation.predictions
        known = [one.encode() for one, label in zip(said.ids, said.labels, strict=True) if label is not None]
        met = meet(task, found, np.flatnonzero(np.isin(task.index.ids, np.array(known, "S22"))))
    learned, looked = met.of(labelled=True), met.of(labelled=False)
    return {
        "taught_by": [{**one.describe(), "backbone": one.backbone or None} for one in found],
        "items": {
            "num_test": met.num_items,
            "num_seen_before": int(learned.sure_T.sum()),
            **learned.counts(),
            "seen_in": learned.seen_in(),
            # Their labels taught nobody: an adaptation is fitted to the very images that it is scored on.
            "num_seen_without_labels": int((looked.sure_T & ~learned.sure_T).sum()),
            "seen_without_labels_in": looked.seen_in(),
        },
        "unknown": unknown,
    }


def warning(traced: dict[str, Any]) -> str | None:
    """What whoever reads the metrics must know; None where no test item was surely met before."""
    items = traced["items"]
    if not items["num_seen_before"]:
        return None
    places = ", ".join(
        f"{row['num_items']} in {row['id']}" + (f" (through backbone {row['backbone']})" if row["backbone"] else "")
        for row in items["seen_in"]
    )
    chained = any(row["backbone"] for row in items["seen_in"])
    return (
        f"{items['num_seen_before']} of {items['num_test']} test items are among what this model learned from "
        f"({places}): the test metrics measure memory too; "
        + ("test on other items, or start from another backbone" if chained else "remove the copies, or test on others")
    )


def flagged(task: Task, evaluation: Evaluation, traced: dict[str, Any]) -> Evaluation:
    """The evaluation with the trace in its report, and with a warning in report and log where items were met before."""
    report = dict(evaluation.report)
    if report.get("data") is not None:
        report["data"] = {**report["data"], "lineage": traced}
    told = warning(traced)
    if told is not None:
        report["warnings"] = [*report.get("warnings", []), told]
        task.context.reporter.log(told, "warning", **traced["items"])
    return replace(evaluation, report=report)


def of_version(storage: Storage, prefix: str, files: Any) -> tuple[Seen, ...] | None:
    """What a published version learned from; None where its bundle is older than such records."""
    return read(storage, f"{prefix}/{bundle.SEEN}") if bundle.SEEN in files else None
