"""Parts that every kind of report has, in one shape. Torch-free.

Shape legend: T scored items, C classes.
"""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import tensors
from app.artifact.predicted import Predictions
from app.artifact.selection import SelectionPredictions
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.contract.candidate import Candidate, Moved
from worker.contract.task import Float, Rows, Task
from worker.data.samples import Index
from worker.overlap import leakage
from worker.overlap.matches import Matches
from worker.scores import calibration, intervals
from worker.scores.intervals import Interval
from worker.scores.metrics import ClassificationMetrics
from worker.scores.verdict import gain as gained
from worker.scores.verdict import relative_error_reduction, verdict
from worker.solvers.logits import softmax

MIN_ECE_ITEMS = 200
# Tensors of a head that `num_params` of its kind does not count.
BESIDE_PARAMETERS = {
    "linear": ("mean", "scale"),
    "cosine": ("spread",),
    "neighbours": ("labels", "sizes"),
    "text": ("mean",),
}
# A difference of something to itself is 0 by definition, and an interval around it would be made up.
ITSELF = {
    "vs_frozen": "what is served is the frozen probe itself, which gains nothing over itself",
    "vs_source_only": "what is served is the source's probe, unchanged, which gains nothing over itself",
}
ENERGY = (
    "a proxy: seconds of processor time of the last attempt, all cores added (what those before it used is not known), "
    "and seconds for which the attempts together held a GPU; multiplied by the watts of a machine they give its energy"
)


@dataclass(frozen=True)
class Evaluation:
    """Everything that is known of a finished transfer.

    Args:
        metrics: flat, as the job's row shows them.
        report: the whole document.
        predictions: of each scored item.
        features: of the same items, in their order, as the head takes them.
        met: which of the scored items had taught the version; None where nobody looked.
        served: what these are of, where that is not the method's candidate: see `reports.fallback`.
        selected: what the verdicts stand on, where that is selection data.

    Shape:
        features: [T, D]
    """

    metrics: dict[str, float | int | None]
    report: dict[str, Any]
    predictions: Predictions
    features: Float
    met: Matches | None = None
    served: Candidate | None = None
    selected: SelectionPredictions | None = None


@dataclass(frozen=True)
class Scored:
    """One model on the scored items."""

    probabilities_TC: NDArray[np.float64]
    predicted_T: NDArray[np.int64]
    correct_T: NDArray[np.bool_]
    bounds: dict[str, Interval]


def score(probabilities_TC: NDArray[np.float64], labels_T: NDArray[np.int64]) -> Scored:
    """What a model said, held against the labels."""
    predicted_T = probabilities_TC.argmax(1)
    bounds = intervals.of_scores(labels_T, predicted_T, probabilities_TC.shape[1])
    return Scored(probabilities_TC, predicted_T, predicted_T == labels_T, bounds)


def served(candidate: Candidate, why: str) -> dict[str, Any]:
    """What was published."""
    return {
        "what": candidate.name,
        "method": candidate.method,
        "backbone": candidate.backbone.name,
        "why": why,
    }


def baseline(scored: Scored, what: str) -> dict[str, Any]:
    """The accuracy of what the transfer is compared with."""
    bound = scored.bounds["accuracy"]
    return {
        "value": bound.value,
        "low": bound.low,
        "high": bound.high,
        "num_samples": len(scored.correct_T),
        "what": what,
    }


def gain(ours: Scored, theirs: Scored, over: str) -> dict[str, Any]:
    """The paired difference on the scored items."""
    difference = intervals.paired_difference(ours.correct_T, theirs.correct_T)
    reduction = relative_error_reduction(float(ours.correct_T.mean()), float(theirs.correct_T.mean()))
    return {**gained(over, difference), "relative_error_reduction": reduction}


def is_same(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates serve the same; an adapted network keeps the head alone."""
    return one.head is other.head and one.graph == other.graph


def itself(same: Mapping[str, bool], over: str) -> dict[str, str]:
    """Why there is no gain and no verdict over what is itself served.

    Args:
        same: of each verdict, whether its baseline is what is served.
        over: the baseline of the gain.
    """
    found = {f"verdicts.{name}": ITSELF[name] for name, is_same in same.items() if is_same}
    if same.get(f"vs_{over}"):
        # The main verdict is never one over the frozen probe.
        keys = ("gain", "verdict") if over == "source_only" else ("gain",)
        found |= dict.fromkeys(keys, ITSELF[f"vs_{over}"])
    return found


def evidence(ours_T: NDArray[np.bool_], theirs_T: NDArray[np.bool_], what: str) -> dict[str, Any]:
    """The paired difference that a verdict words; `what` says on which items."""
    difference = intervals.paired_difference(ours_T, theirs_T)
    return {
        "verdict": verdict(difference),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "num_samples": len(ours_T),
        "mcnemar_p": intervals.mcnemar(ours_T, theirs_T).p_value,
        "what": what,
    }


def calibrated(
    task: Task, candidate: Candidate, probabilities_TC: NDArray[np.float64], labels_T: NDArray[np.int64]
) -> dict[str, Any]:
    """How far probabilities can be believed; the errors are null where there are too few items to say."""
    found = asdict(calibration.calibration(probabilities_TC, labels_T))
    if len(labels_T) < MIN_ECE_ITEMS:
        found |= {"ece": None, "adaptive_ece": None}
    return {
        "calibrated": candidate.calibrated,
        "temperature": candidate.head.temperature,
        **found,
        "selection": temperature_effect(task, candidate),
    }


def temperature_effect(task: Task, candidate: Candidate) -> dict[str, Any] | None:
    """Errors of the probabilities without and with the temperature, on the items that it was fitted to; None without.

    One number was fitted to all of them, so what it gained there is close to what it gains elsewhere.
    """
    selected = candidate.selection
    if not candidate.calibrated or not len(selected.rows):
        return None
    labels_P = task.labels_N[selected.rows]
    told: dict[str, Any] = {"num_samples": len(labels_P), "what": selected.what}
    for name, temperature in (("before", 1.0), ("after", candidate.head.temperature)):
        found = calibration.calibration(softmax(selected.logits / temperature), labels_P)
        enough = len(labels_P) >= MIN_ECE_ITEMS
        told[name] = {"ece": found.ece if enough else None, "brier": found.brier, "nll": found.nll}
    return told


def per_class(scores: ClassificationMetrics) -> list[dict[str, Any]]:
    """One row per class, by its label."""
    return [
        {"label": row["name"], **{key: value for key, value in row.items() if key != "name"}}
        for row in scores.per_class
    ]


def mapping(candidate: Candidate) -> dict[str, Any]:
    """What of the backbone's parameters moved into the model, what was trained, and what became of each tensor."""
    backbone = candidate.backbone
    came = backbone.num_params - backbone.num_new
    # The head's are new, and no part of the backbone.
    trained = 0 if candidate.shared else max(0, candidate.trained_params - candidate.head.num_params)
    return {
        "backbone": backbone.name,
        "parameters": backbone.num_params,
        "mapped": came,
        "frozen": max(0, came - trained),
        "trained": candidate.trained_params,
        "new": candidate.head.num_params + backbone.num_new,
        "tensors": [{**asdict(row), "shape": list(row.shape)} for row in _tensors(candidate)],
    }


def _tensors(candidate: Candidate) -> tuple[Moved, ...]:
    """One row per tensor; a frozen backbone's names come from its file's header."""
    kept = candidate.moved or tuple(
        Moved(name, shape, "frozen") for name, shape in tensors.shapes(candidate.backbone.weights).items()
    )
    head = candidate.head.tensors()
    # An own checkpoint need not fill the whole network.
    new = set(candidate.backbone.new)
    kept = tuple(replace(row, what="new") if row.what == "frozen" and row.name in new else row for row in kept)
    beside = BESIDE_PARAMETERS.get(candidate.head.kind, ())
    made = {name: "measured" if name in beside else "new" for name in head}
    return (*kept, *(Moved(f"head.{name}", value.shape, made[name]) for name, value in head.items()))


def cost(task: Task, candidate: Candidate, compared_seconds: float | None = None) -> dict[str, Any]:
    """Time and memory; baselines have a time of their own only where they were made after the transfer."""
    extraction = candidate.extraction
    usage, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    earlier_seconds = task.context.document.earlier_seconds
    total_seconds = earlier_seconds + task.context.reporter.elapsed_seconds
    pace = extraction.num_extracted / extraction.seconds if extraction and extraction.num_extracted else None
    return {
        "transfer_seconds": round(candidate.seconds, 3),
        "baselines_seconds": compared_seconds and round(compared_seconds, 3),
        "total_seconds": round(total_seconds, 3),
        "attempts": task.context.document.attempt,
        "earlier_seconds": round(earlier_seconds, 3),
        "images_cached": extraction.num_cached if extraction else None,
        "images_extracted": extraction.num_extracted if extraction else None,
        "extraction_seconds": round(extraction.seconds, 3) if extraction else None,
        "images_per_second": pace and round(pace, 1),
        "trained_params": candidate.trained_params,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "peak_gpu_memory_bytes": _gpu_bytes(task.context.device),
        "energy_proxy": {
            "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in (usage, children)), 3),
            "gpu_seconds": round(total_seconds, 3) if task.context.device == "cuda" else 0.0,
            "note": ENERGY,
        },
        "device": task.context.device,
        "precision": features.precision(task.context),
    }


def extraction(told: Mapping[str, Any]) -> Extraction | None:
    """What was extracted, out of a report's `cost`; None where no features were needed."""
    if told["images_cached"] is None:
        return None
    return Extraction(told["images_cached"], told["images_extracted"], told["extraction_seconds"])


def _gpu_bytes(device: str) -> int | None:
    """Of GPU memory at most; None on a CPU, and where this process never opened torch."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and device == "cuda" else None


def leaks(met: Matches, alike_T: NDArray[np.bool_] | None, correct_T: NDArray[np.bool_]) -> dict[str, Any]:
    """Scored items with a twin in what was learned from, by bytes, by look, by features; the accuracy without them.

    Args:
        met: which items labels were learned from, by whichever teacher, those of an own backbone included.
        alike_T: which have a twin by features; None where nobody looked, which is not the same as none.
        correct_T: which are named right.
    """
    learned = met.of(labelled=True)
    by_features_T = np.zeros(len(correct_T), bool) if alike_T is None else alike_T
    exact_T = learned.by_id_T | learned.by_bytes_T
    found = leakage.leakage(correct_T, exact_T, learned.by_look_T, by_features_T, learned.sure_T).document()
    # Those that the backbone had learned before this job.
    found["num_through_backbone"] = int(learned.of(chained=True).sure_T.sum())
    return found if alike_T is not None else {**found, "num_cosine": None}


def predictions(
    index: Index,
    rows: Rows,
    labels: Sequence[int],
    probabilities_TC: NDArray[np.float64],
    names: tuple[str, ...],
    beside: Mapping[str, Scored | None] | None = None,
) -> Predictions:
    """What was said of each item, and what others named, who are not the served model; a label of -1 is none."""
    others = {name: one.probabilities_TC for name, one in (beside or {}).items() if one is not None}
    return Predictions(
        ids=index.ids_at(rows),
        sha256=[value.decode() for value in index.sha256[rows]],
        labels=[names[label] if label >= 0 else None for label in labels],
        predicted=[names[label] for label in probabilities_TC.argmax(1)],
        splits=index.splits_at(rows),
        probabilities=probabilities_TC.astype(np.float32),
        baselines={name: [names[label] for label in said_TC.argmax(1)] for name, said_TC in others.items()},
    )
