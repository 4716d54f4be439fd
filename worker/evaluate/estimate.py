"""Accuracy on images without labels, by average thresholded confidence (ATC). Torch-free.

Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance, arXiv 2201.04234, equations 1 and 2:
on items with known answers, which taught the model nothing, a threshold is put where as large a share of the scores
lies below it as there are wrong answers; the share of the other items' scores that lies above it is the estimate. The
score is the negative entropy of the probabilities (ATC-NE), which the paper finds ahead of the largest probability.

It chooses nothing. It holds as far as confidence falls where accuracy falls, and no interval can promise that. Of a
model that guesses there is none: its few right answers are no surer than the others, and where the threshold falls
among them is luck.

Shape legend: K items with known answers, M without, C classes, B draws.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.adaptation import Confidence
from worker.evaluate.flags import beats_largest_class

Double = NDArray[np.float64]

# With fewer known items a threshold is one wrong answer more or less.
MIN_KNOWN, MIN_ASKED = 30, 10
# Of the bootstrap; of more known items it takes a part.
_DRAWS, _MAX_DRAWN = 500, 2000
METHOD = "average thresholded confidence with negative entropy (ATC-NE, arXiv 2201.04234)"
GUESSES = (
    "needs a model that is shown to be better than always naming the largest class; found {right:.3f} of the {num} "
    "known answers right, and {largest:.3f} of them of one class: how sure a model is says nothing where it guesses; "
    "label some images"
)
WARNING = (
    "no label was read: it is right as far as the model is less sure where it is wrong more often. Images of no class "
    "of the model, other shares of classes, and mistakes that it is sure of are not seen; where it is a little less "
    "sure of every image it falls too far. The interval is of chance alone and says nothing of such shifts: label some "
    "images to know"
)


@dataclass(frozen=True)
class Estimate:
    """An accuracy that nobody has measured.

    Args:
        value: of the items that were asked about.
        low: of its 95 % interval over which items happened to be known and asked; not over shifts.
        high: of the same.
        known_accuracy: on the items with known answers: what to expect if nothing differed.
        num_known: of them.
        num_items: that were asked about.
        method: by which.
        warning: what it cannot see.
    """

    value: float
    low: float
    high: float
    known_accuracy: float
    num_known: int
    num_items: int
    method: str = METHOD
    warning: str = WARNING


def negative_entropy(probabilities_NC: NDArray[np.floating]) -> Double:
    """How sure each answer is, in nats; 0 at most.

    Shape:
        probabilities_NC: [N, C]; returns [N].
    """
    exact_NC = probabilities_NC.astype(np.float64)
    return np.asarray((exact_NC * np.log(np.maximum(exact_NC, np.finfo(np.float64).tiny))).sum(1))


def threshold(known_K: Double, right_K: NDArray[np.bool_]) -> float:
    """The score under which as many known items lie as have a wrong answer; infinite where all are wrong.

    Equation 1. Of equal scores all lie above it, so that with ties fewer may lie below.
    """
    wrong = len(right_K) - int(right_K.sum())
    return float(np.sort(known_K)[wrong]) if wrong < len(known_K) else np.inf


def guesses(confidence: Confidence) -> bool:
    """Whether nothing shows the model to be better on the known items than always naming the largest class."""
    return not beats_largest_class(confidence.right_K, confidence.labels_K)


def accuracy(confidence: Confidence) -> float:
    """The estimate, without an interval; of at least one item that is asked about."""
    return float((confidence.asked_M >= threshold(confidence.known_K, confidence.right_K)).mean())


def missing(confidence: Confidence) -> str | None:
    """Why there is no estimate; None where there is one."""
    if len(confidence.known_K) < MIN_KNOWN:
        num = len(confidence.known_K)
        return f"needs {MIN_KNOWN} items with known answers beside those that are asked about; found {num}"
    if len(confidence.asked_M) < MIN_ASKED:
        return f"needs {MIN_ASKED} items to ask about; found {len(confidence.asked_M)}"
    if guesses(confidence):
        largest = int(np.bincount(confidence.labels_K).max())
        num = len(confidence.labels_K)
        return GUESSES.format(right=confidence.right_K.mean(), num=num, largest=largest / num)
    return None


def estimate(confidence: Confidence, seed: int) -> Estimate | None:
    """The estimate and its bootstrap interval, of both kinds of items; None for the reason in `missing`."""
    if missing(confidence):
        return None
    known_K, right_K, asked_M = confidence.known_K, confidence.right_K, np.sort(confidence.asked_M)
    chance = np.random.default_rng(seed)
    num = len(known_K)
    drawn = min(num, _MAX_DRAWN)
    levels_B = np.empty(_DRAWS)
    for draw in range(_DRAWS):
        rows = chance.integers(0, num, drawn)
        levels_B[draw] = threshold(known_K[rows], right_K[rows])
    above_B = 1.0 - np.searchsorted(asked_M, levels_B, side="left") / len(asked_M)
    found_B = chance.binomial(len(asked_M), above_B) / len(asked_M)
    value = accuracy(confidence)
    low, high = np.quantile(found_B, [0.025, 0.975])
    return Estimate(
        value,
        min(value, float(low)),
        max(value, float(high)),
        float(right_K.mean()),
        num,
        len(asked_M),
    )


def section(confidence: Confidence, seed: int, found: float | None) -> tuple[dict[str, Any] | None, str]:
    """The part of a document, and why it is None.

    Args:
        confidence: of the model.
        seed: of the bootstrap.
        found: accuracy on the same items, measured afterwards; None without labels.
    """
    made = estimate(confidence, seed)
    if made is None:
        return None, missing(confidence) or ""
    error = None if found is None else made.value - found
    return {**asdict(made), "found": found, "error": error}, ""
