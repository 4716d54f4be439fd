"""What a version learned from, item by item, and which items it met before it was tested on them. Torch-free.

A test item counts as met when it is the same sample, has the same bytes, or looks the same (pHash within 4 bits) as an
item that taught the version, or the chain of own backbones under it. Whoever tests on such items measures memory too.

Shape legend: T items that are asked about, N items of a teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import bundle, tensors
from app.artifact import seen as artifact
from app.artifact.bundle import Predictions
from app.artifact.seen import DIGEST_BYTES, ID_BYTES, NO_LOOK, Seen, What
from app.storage import Storage
from worker.context import RunContext
from worker.data.samples import Index
from worker.data.splits import SPLITS
from worker.evaluate import leakage
from worker.evaluate.sections import Evaluation
from worker.methods.contract import Rows, Task
from worker.prepared import Prepared

Marks = NDArray[np.bool_]
UPLOADED = "backbone {name} was uploaded: what it learned from elsewhere is not known item by item"


@dataclass(frozen=True)
class Matches:
    """Which items were met, by what they were recognised, with which teachers.

    Shape:
        by_id_T, by_bytes_T, by_look_T, labelled_T: [T]
        each: [T] for every teacher
    """

    by_id_T: Marks
    by_bytes_T: Marks
    by_look_T: Marks
    labelled_T: Marks
    each: tuple[tuple[Seen, Marks], ...]

    @property
    def any_T(self) -> Marks:
        """By whatever sign, from whichever teacher."""
        return self.by_id_T | self.by_bytes_T | self.by_look_T

    def seen_in(self, *, labelled: bool | None = None) -> list[dict[str, Any]]:
        """One row for each teacher that has met some of the items; of all of them, or of one kind."""
        return [
            {**one.describe(), "backbone": one.backbone or None, "num_items": int(marks_T.sum())}
            for one, marks_T in self.each
            if marks_T.any() and labelled in (None, one.labelled)
        ]


def of_rows(index: Index, rows: Rows, what: What, dataset: str) -> Seen:
    """Some samples of a dataset as a teacher's set."""
    sha256 = bytes.fromhex(index.sha256[rows].tobytes().decode())
    names = np.ascontiguousarray(index.ids[rows]).view(np.uint8).reshape(len(rows), 22)[:, 2:]
    ids = bytes.fromhex(names.tobytes().decode())
    return Seen(
        what,
        dataset,
        "",
        np.frombuffer(ids, np.uint8).reshape(len(rows), ID_BYTES),
        np.frombuffer(sha256, np.uint8).reshape(len(rows), DIGEST_BYTES),
        index.phash[rows].astype(np.uint64),
    )


def match(asked: Seen, teachers: Sequence[Seen]) -> Matches:
    """Which of some items the teachers have met.

    Shape:
        asked: [T]
    """
    by_id_T, by_bytes_T, by_look_T, labelled_T = np.zeros((4, len(asked.sha256)), bool)
    each = []
    for one in teachers:
        same_T = _rows_in(asked.ids, one.ids[one.ids.any(1)])
        bytes_T = _rows_in(asked.sha256, one.sha256)
        look_T = leakage.phash_twins(asked.phash, one.phash[one.phash != NO_LOOK]) & (asked.phash != NO_LOOK)
        by_id_T |= same_T
        by_bytes_T |= bytes_T
        by_look_T |= look_T
        met_T = same_T | bytes_T | look_T
        labelled_T |= met_T & one.labelled
        each.append((one, met_T))
    return Matches(by_id_T, by_bytes_T, by_look_T, labelled_T, tuple(each))


def teachers(task: Task, backbone: Prepared) -> tuple[tuple[Seen, ...], str | None]:
    """What a version of this task on that backbone learned from.

    Returns:
        one set for each teacher inside of Graft, and why there may be others; None where there are none.
    """
    document = task.context.document
    found: list[Seen] = []
    not_test = np.flatnonzero(task.index.split != SPLITS.index("test"))
    if task.source is not None:
        assert document.dataset is not None
        found.append(of_rows(task.source.index, task.source.pool, "source", document.datasets["source"].id))
        what: What = "dataset" if (task.labels_N >= 0).any() else "unlabelled"
        found.append(of_rows(task.index, task.pool, what, document.dataset.id))
    elif document.dataset is not None:
        what = "dataset" if task.index.classes else "unlabelled"
        found.append(of_rows(task.index, not_test, what, document.dataset.id))
    inherited, unknown = of_backbone(task.context, backbone.name)
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


def trace(task: Task, found: Sequence[Seen], unknown: str | None, predictions: Predictions) -> dict[str, Any]:
    """`data.lineage` of a report: how many of the tested items were met before, and where.

    Args:
        task: the job's data.
        found: what the version learned from, see `teachers`.
        unknown: why that may not be all.
        predictions: of the tested items; those without a label test nothing.
    """
    known = [one.encode() for one, label in zip(predictions.ids, predictions.labels, strict=True) if label is not None]
    rows = np.flatnonzero(np.isin(task.index.ids, np.array(known, "S22")))
    asked = of_rows(task.index, rows, "dataset", "")
    met = match(asked, found)
    return {
        "taught_by": [{**one.describe(), "backbone": one.backbone or None} for one in found],
        "items": {
            "num_test": len(rows),
            "num_seen_before": int(met.labelled_T.sum()),
            "seen_in": met.seen_in(labelled=True),
            # Their labels taught nobody: an adaptation is fitted to the very images that it is scored on.
            "num_seen_without_labels": int((met.any_T & ~met.labelled_T).sum()),
            "seen_without_labels_in": met.seen_in(labelled=False),
        },
        "unknown": unknown,
    }


def warning(traced: dict[str, Any]) -> str | None:
    """What whoever reads the metrics must know; None where no test item was met before."""
    items = traced["items"]
    if not items["num_seen_before"]:
        return None
    places = ", ".join(
        f"{row['num_items']} in {row['id']}" + (f" (through backbone {row['backbone']})" if row["backbone"] else "")
        for row in items["seen_in"]
    )
    return (
        f"{items['num_seen_before']} of {items['num_test']} test items are among what this model learned from "
        f"({places}): the test metrics measure memory too; test on other items, or start from another backbone"
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


def _rows_in(asked_TB: NDArray[np.uint8], known_NB: NDArray[np.uint8]) -> Marks:
    """Which rows of bytes are among others. As texts numpy sorts them; of equal width, trailing zeros tell no lie."""
    width = f"S{asked_TB.shape[1]}"
    left, right = (np.ascontiguousarray(rows).view(width).ravel() for rows in (asked_TB, known_NB))
    return np.isin(left, right)
