"""A version is tried on its stored sample before it answers: the way of a request, to scores that are known.

A graph that was damaged, another library or another processor that computes something else would otherwise be served
and nobody would notice. What has been tried is a pair of loaded sessions; when either is loaded again, so is the trial.
"""

import threading
from collections import deque

import numpy as np

from app.artifact import preprocess
from app.artifact.preprocess import Preprocess
from app.artifact.sample import Sample
from app.errors import BadImage, NotReady
from app.serving.model import Served
from app.serving.runtime import Session

# Between scores of the same picture, as between all doors that answer, and between features as a share of the largest:
# of an image that a steep head has learned from, scores are 0 and 1 whatever becomes of its features. Another order of
# sums moves either by 1e-6.
TOLERANCE = 1e-4
# Pairs of sessions remembered for each version: one core or all, and some that are loaded anew.
NUM_PAIRS = 8


class Trials:
    """Which versions of this process have passed their trial, and which have not. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed: dict[tuple[str, str], deque[tuple[int, int]]] = {}
        self._failed: dict[tuple[str, str], str] = {}

    def passed(self, model: Served) -> bool:
        """Whether the version has been tried since the process began, and last with success."""
        return model.key in self._passed and model.key not in self._failed

    def failure(self, model: Served) -> str | None:
        """Why the version is not ready; None where nothing is known against it."""
        return self._failed.get(model.key)

    def check(self, model: Served, backbone: Session, head: Session) -> None:
        """Tries the version on these sessions, unless it has passed on them before; that look takes a microsecond.

        Raises:
            NotReady: its scores are not those that were stored.
        """
        pair, known = (backbone.number, head.number), self._passed.get(model.key)
        if known is not None and pair in known:
            return
        sample = model.sample() if model.sample is not None else None
        problem = None if sample is None else _problem(sample, model, backbone, head)
        with self._lock:
            if problem is None:
                self._failed.pop(model.key, None)
                self._passed.setdefault(model.key, deque(maxlen=NUM_PAIRS)).append(pair)
                return
            self._failed[model.key] = problem
        raise NotReady(
            "expected a version that says of its stored sample what it said when it was published, within "
            f"{TOLERANCE:g}; {problem}; restore its files, or serve it with the libraries that its spec.json names"
        )


def largest_difference(sample: Sample, shape: Preprocess, backbone: Session, head: Session) -> float:
    """Of one score, or of one feature over the largest, between now and what is stored; NaN for what is no number.

    Raises:
        BadImage: a picture cannot be decoded.
    """
    pixels_KHWC = np.stack([preprocess.load(picture, shape) for picture in sample.pictures])
    features_KD = backbone.run(pixels_KHWC)[backbone.output_names.index("features")]
    scores_KC = head.run(features_KD)[head.output_names.index("probabilities")]
    said = sample.said
    largest = max(float(np.abs(said.features_KD).max()), np.finfo(np.float32).tiny)
    apart = np.abs(features_KD - said.features_KD).max() / largest, np.abs(scores_KC - said.scores_KC).max()
    return float(np.max(apart))


def _problem(sample: Sample, model: Served, backbone: Session, head: Session) -> str | None:
    try:
        off = largest_difference(sample, model.spec.preprocess, backbone, head)
    except BadImage as error:
        return f"found a picture that cannot be decoded here: {error.detail}"
    return None if off <= TOLERANCE else f"found that it is {off:.3g} off"
