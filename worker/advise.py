"""The job that looks for what may be wrong with a dataset: load -> features -> search -> thumbnails. No torch.

It reads all splits and serves nothing: what is trained here is trained to be asked about images that it has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import failpoints
from app.advice import AGAINST, THUMBNAILS, Kind
from app.services import studies
from worker import transfer
from worker.advice import classes, drift, duplicates, findings, label_errors, out_of_fold, outliers, thumbnails
from worker.advice.findings import Found
from worker.advice.thumbnails import Part
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.prepared import Prepared
from worker.data.labels import MISSING
from worker.data.samples import Index
from worker.overlap.copies import Gallery
from worker.prepare import sources

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Float = NDArray[np.float32]

# A report's `domain` has distances of the same names in another space, and so with other scales.
SPACE = (
    "mmd and proxy_a on all {dims} dimensions of the features, coral and frechet on their {parts} leading principal "
    "components; each dimension standardised by both sets together, {num} pictures of each at most; a report's "
    "`domain` has all four on all dimensions, so its coral and frechet are others"
)


@dataclass(frozen=True)
class Labelled:
    """The labelled part of a dataset: its rows, their labels, the classes; empty where the labels are of another kind.

    Args:
        reason: why labels are not looked at; None where they are.
    """

    rows: Ints
    labels: Ints
    classes: tuple[str, ...]
    reason: str | None

    @property
    def counts(self) -> Ints:
        """Images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


def run(context: RunContext) -> dict[str, Any]:
    """Answers the job's study.

    Returns:
        `result` for the study, `metrics` for the job.

    Raises:
        JobFailure: what the owner of the job can understand.
    """
    document, reporter = context.document, context.reporter
    reporter.progress(0.01, "load")
    index = transfer.load(context, document.dataset)
    backbone = sources.open_best(context)
    feats_ND = _features(context, index, np.arange(len(index)), backbone, ("features", 0.05, 0.6))
    found, about = _search(context, index, feats_ND)
    compared, other = None, None
    if "against" in document.datasets:
        reporter.progress(0.75, "drift")
        other = transfer.load(context, document.datasets["against"])
        found["drift"], compared = _drift(context, index, other, backbone, feats_ND)
    reporter.check_yield()
    reporter.progress(0.9, "thumbnails")
    listed = findings.listed(found)
    shown = [Part(index, thumbnails.choose(listed))]
    if other is not None:
        strange = dict.fromkeys(row for one in listed for row in one.against)
        shown.append(Part(other, list(strange), AGAINST))
    _store(context, shown)
    result = {
        "backbone": backbone.name,
        "backbone_digest": backbone.digest,
        "num_samples": len(index),
        "splits": "all: train, val and test; nothing that is served is trained or chosen here",
        **about,
        "drift": compared,
        **findings.document(index, found, other),
        "num_thumbnails": sum(len(part.rows) for part in shown),
    }
    metrics = {f"num_{kind}": count for kind, count in result["counts"].items() if count is not None}
    told = ", ".join(f"{count} {kind}" for kind, count in result["counts"].items() if count) or "nothing"
    reporter.metric(f"found {told}", **metrics)
    return {"result": result, "metrics": metrics}


def labelled(index: Index) -> Labelled:
    """What of the dataset has one class per image."""
    column = index.columns[0]
    none = np.empty(0, np.int64)
    if len(index.columns) > 1 or column.kind != "class":
        task = index.description["task"]
        return Labelled(
            none, none, (), f"expected one class per image; found a dataset for {task}; images are compared"
        )
    rows = np.flatnonzero(column.values != MISSING)
    if not len(rows):
        return Labelled(none, none, (), "expected labels; found none; images are compared")
    return Labelled(rows, np.asarray(column.values[rows], np.int64), column.names, None)


def _search(context: RunContext, index: Index, feats_ND: Float) -> tuple[dict[Kind, Found], dict[str, Any]]:
    """Everything that one dataset alone can tell; by kind, and what is said of the labels as a whole."""
    seed, reporter = context.document.seed, context.reporter
    found: dict[Kind, Found] = {}
    known = labelled(index)
    about: dict[str, Any] = {"labels": None, "labels_reason": known.reason}
    suspect_N = np.zeros(len(index), bool)
    if known.reason is None:
        reporter.progress(0.6, "labels")
        found |= {
            "small_class": classes.small(known.labels, known.classes, known.rows),
            "imbalanced": classes.imbalanced(known.counts, known.classes),
        }
        judged, about = _labels(index, known, feats_ND, suspect_N, seed)
        found |= judged
    else:
        kinds: tuple[Kind, ...] = ("label_error", "confused_classes", "small_class", "imbalanced")
        found |= dict.fromkeys(kinds, Found(reason=known.reason))
    reporter.check_yield()
    reporter.progress(0.7, "outliers")
    labels_N = np.full(len(index), MISSING, np.int64)
    labels_N[known.rows] = known.labels
    apart = outliers.measure(outliers.unit(feats_ND), labels_N, index.group, seed)
    names = [known.classes[label] if label != MISSING else None for label in labels_N.tolist()]
    gallery = Gallery(context, {})
    found["outlier"] = outliers.find(apart, names, suspect_N)
    found["near_duplicate"] = duplicates.find(index, feats_ND, lambda rows: gallery.small(index, rows))
    return found, about


def _labels(
    index: Index, known: Labelled, feats_ND: Float, suspect_N: Bools, seed: int
) -> tuple[dict[Kind, Found], dict[str, Any]]:
    """Label errors and confused classes, by predictions for images that were not learned; marks the suspects."""
    why_not = label_errors.reason(known.labels, None)
    if why_not is None and len(np.unique(index.group[known.rows])) < 2:
        why_not = "a label is judged by other pictures; all images with labels are copies of one; see near_duplicate"
    if why_not is not None:
        return dict.fromkeys(("label_error", "confused_classes"), Found(reason=why_not)), {
            "labels": None,
            "labels_reason": why_not,
        }
    num_classes = len(known.classes)
    inside = feats_ND if len(known.rows) == len(feats_ND) else feats_ND[known.rows]
    logits_NC = out_of_fold.logits(inside, known.labels, index.group[known.rows], num_classes, seed)
    predicted_N = logits_NC.argmax(1)
    fit = out_of_fold.agreement(predicted_N, known.labels, num_classes)
    about: dict[str, Any] = {
        "fit": fit.is_there,
        "accuracy": round(fit.accuracy, 4),
        "chance": round(fit.chance, 4),
        "kappa": round(fit.kappa, 4),
        "z": round(fit.z, 2),
    }
    why_not = label_errors.reason(known.labels, fit)
    if why_not is not None:
        return dict.fromkeys(("label_error", "confused_classes"), Found(reason=why_not)), {
            "labels": about,
            "labels_reason": why_not,
        }
    judged = label_errors.judge(logits_NC, known.labels)
    suspect_N[known.rows[judged.suspects]] = True
    # Wrong labels are no confusion of classes.
    sound = ~suspect_N[known.rows]
    return {
        "label_error": label_errors.find(judged, known.labels, known.classes, known.rows),
        "confused_classes": classes.confused(predicted_N[sound], known.labels[sound], known.classes, known.rows[sound]),
    }, {"labels": about | label_errors.summary(judged), "labels_reason": None}


def _drift(
    context: RunContext, index: Index, other: Index, backbone: Prepared, feats_ND: Float
) -> tuple[Found, dict[str, Any] | None]:
    seed = context.document.seed
    here, there = drift.draw(index, seed), drift.draw(other, seed)
    why_not = drift.reason(here, there)
    if why_not is not None:
        return Found(reason=why_not), None
    there_ND = _features(context, there.index, there.rows, backbone, ("drift", 0.75, 0.85))
    found, compared = drift.compare(here, there, feats_ND[here.rows], there_ND, seed)
    return found, compared | {
        "space": SPACE.format(dims=feats_ND.shape[1], parts=compared["num_components"], num=drift.SAMPLES)
    }


def _features(
    context: RunContext, index: Index, rows: Ints, backbone: Prepared, stage: tuple[str, float, float]
) -> Float:
    found, extraction = features.pooled(context, index, rows, backbone, stage)
    context.reporter.log(
        f"features of {len(rows)} images under {backbone.name}: {extraction.num_cached} cached, "
        f"{extraction.num_extracted} extracted in {extraction.seconds:.1f} s",
        num_cached=extraction.num_cached,
        num_extracted=extraction.num_extracted,
    )
    return found


def _store(context: RunContext, parts: Sequence[Part]) -> None:
    """Thumbnails, under the study's own prefix: whatever ends it takes them along."""
    document = context.document
    path = context.scratch / THUMBNAILS
    thumbnails.write(path, parts, context.storage.fetch, context.settings.max_image_pixels)
    context.storage.put(f"{studies.prefix(document.project, document.inputs['study_id'])}/{THUMBNAILS}", path)
    failpoints.reach("thumbnails_stored")
