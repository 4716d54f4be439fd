"""Labels that are probably wrong: the noise model says which, confident learning says what they are instead. No torch.

Shape legend: N labelled items, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.advice import confident, noise
from worker.advice.confident import Confident
from worker.advice.findings import Finding, Found
from worker.advice.noise import Noise
from worker.advice.out_of_fold import Fit
from worker.solvers.logits import softmax

Double = NDArray[np.float64]
Ints = NDArray[np.int64]

# Below these there is nothing to tell a wrong label from: five folds leave four images of five.
MIN_ITEMS, MIN_CLASS = 30, 5
# One in four. With 5 % of the labels drawn anew, three quarters of them and more are listed, and of what is listed
# 0.64 (emoji), 0.81 (photos) and 0.87 (digits) are wrong; one in three would miss a quarter of them.
MIN_WRONG = 0.25
# Twice the gain in log-likelihood that no noise at all exceeds once in twenty times (chi-square, halved at its border).
MIN_RATIO = 2.71
# What noise that is possible, but not needed, makes of a label: on easy data the only sign there is.
SURE = 0.9


@dataclass(frozen=True)
class Judged:
    """What was worked out about the labels.

    Args:
        noise: see there.
        wrong_N: probability of each label to be wrong; 0 where nothing says that it is.
        confident: see there.
        probs_NC: of every class, at the temperature that the noise leaves.
        suspects: places of the labels that are probably wrong, surest first.
    """

    noise: Noise
    wrong_N: Double
    confident: Confident
    probs_NC: Double
    suspects: Ints


def judge(logits_NC: Double, labels_N: Ints) -> Judged:
    """Finds labels that are probably wrong.

    Shape:
        logits_NC: [N, C], of a model that has not learned the item
        labels_N: [N]
    """
    fitted = noise.fit(logits_NC, labels_N)
    probs_NC = softmax(logits_NC / fitted.temperature).astype(np.float64)
    learned = confident.learn(probs_NC, labels_N)
    small_C = np.bincount(labels_N, minlength=logits_NC.shape[1]) < MIN_CLASS
    # Of a class with a handful of images the model knows little: that it does not name it means nothing.
    needed_N = fitted.wrong_N * (fitted.ratio >= MIN_RATIO)
    wrong_N = np.maximum(needed_N, fitted.possible_N * (fitted.possible_N >= SURE))
    suspect_N = (wrong_N >= MIN_WRONG) & ~small_C[labels_N]
    suspects = np.flatnonzero(suspect_N)
    return Judged(fitted, wrong_N, learned, probs_NC, suspects[np.argsort(-wrong_N[suspects], kind="stable")])


def reason(labels_N: Ints, fit: Fit | None) -> str | None:
    """Why labels cannot be judged; None where they can be."""
    if len(labels_N) < MIN_ITEMS:
        return (
            f"expected at least {MIN_ITEMS} labelled images to judge labels by; found {len(labels_N)}; add images, and "
            "look at each label by hand until then"
        )
    if fit is not None and not fit.is_there:
        return (
            f"the labels do not fit the images: left out, {fit.accuracy:.0%} of them are predicted where "
            f"{fit.chance:.0%} are by chance; they may be shuffled, or this backbone does not see what tells classes "
            "apart, so which of them are wrong cannot be said; look at a few images of each class, or take another "
            "backbone"
        )
    return None


def find(judged: Judged, labels_N: Ints, classes: tuple[str, ...], rows_N: Ints) -> Found:
    """One finding for each suspect: relabel where another class is confident, else look.

    Args:
        judged: by `judge`.
        labels_N: as given.
        classes: names.
        rows_N: of the items, in the dataset.
    """
    found = []
    for place in judged.suspects.tolist():
        given, row = classes[labels_N[place]], int(rows_N[place])
        wrong = float(judged.wrong_N[place])
        likely = int(judged.probs_NC[place].argmax())
        sure = int(judged.confident.class_N[place])
        numbers = {
            "probability_of_label": round(float(judged.probs_NC[place, labels_N[place]]), 6),
            "most_probable": classes[likely],
            "probability": round(float(judged.probs_NC[place, likely]), 4),
        }
        if sure == labels_N[place]:
            message = (
                f"labelled {given!r}, wrong with a probability of {_percent(wrong)}; no other class is likely enough "
                f"to be named ({classes[likely]!r} comes first)"
            )
            found.append(Finding("label_error", message, (row,), given, confidence=wrong, data=numbers))
            continue
        message = f"labelled {given!r}, wrong with a probability of {_percent(wrong)}; likely {classes[sure]!r}"
        found.append(Finding("label_error", message, (row,), given, "relabel", (row,), classes[sure], wrong, numbers))
    return Found(tuple(found))


def _percent(share: float) -> str:
    """Never all of it: a fit is not certain of anything."""
    return "more than 99%" if share > 0.99 else f"{share:.0%}"


def summary(judged: Judged) -> dict[str, float | int | None]:
    """Estimates over all labels."""
    joint_CC = judged.confident.joint_CC
    suspects = judged.wrong_N[judged.suspects]
    return {
        "estimated_share_wrong": round(judged.noise.rate, 4),
        "possible_share_wrong": round(judged.noise.possible_rate, 4),
        "likelihood_ratio": round(judged.noise.ratio, 3),
        "expected_share_of_listed": round(float(suspects.mean()), 3) if len(suspects) else None,
        "off_diagonal_share_of_confident_joint": round(float(1 - np.trace(joint_CC) / joint_CC.sum()), 4),
    }
