"""A version is tried on its stored sample before it answers: the way of a request, to scores that are known.

A graph that was damaged, another library or another processor that computes something else would otherwise be served
and nobody would notice. What has been tried is a pair of loaded sessions; when either is loaded again, so is the trial.
"""

import threading
from typing import NamedTuple

import numpy as np

from app.artifact import preprocess
from app.artifact.precisions import FLOAT, FP16, INT8, Precision, Second
from app.artifact.preprocess import Preprocess
from app.artifact.sample import Sample
from app.errors import BadImage, NotReady
from app.serving.model import Served
from app.serving.runtime import Session

# Between scores of the same picture, as between all doors that answer, and between features as a share of the largest:
# of an image that a steep head has learned from, scores are 0 and 1 whatever becomes of its features. Another order of
# sums moves either by 1e-6.
TOLERANCE = 1e-4
# Of features of the other graphs. In 8 bits a value that another processor rounds by 1e-7 otherwise comes to lie a step
# further, and with it what is computed from it: the same graph without fused operators, which rounds in other places,
# was 0.03 off. In half precision they are 2e-5 off without fused operators, since onnxruntime computes them in float32
# on a processor, which is where they were stored. A GPU rounds each of them: rehearsed so (`worker.halve`), 160 pairs
# of pictures, four starter backbones, they were 0.018 off at most; a rehearsal without fused operators moved by 7e-4.
SECOND_TOLERANCES: dict[Second, float] = {INT8: 0.05, FP16: 0.04}
# Pairs of sessions remembered for each version: one core or all, and some that are loaded anew.
NUM_PAIRS = 8


class Trials:
    """Which versions of this process have passed their trial, and which have not. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced, never changed: it is read without the lock.
        self._passed: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}
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
        pair = (backbone.number, head.number)
        if pair in self._passed.get(model.key, ()):
            return
        sample = model.sample() if model.sample is not None else None
        problem = None if sample is None else _problem(sample, model, backbone, head)
        with self._lock:
            if problem is None:
                self._failed.pop(model.key, None)
                self._passed[model.key] = (*self._passed.get(model.key, ())[1 - NUM_PAIRS :], pair)
                return
            self._failed[model.key] = problem
        raise NotReady(
            "expected a version that says of its stored sample what it said when it was published, within "
            f"{tolerance(model.precision):g}; {problem}; restore its files, or serve it with the libraries and on the "
            "kind of processor that it was published with"
        )


class Apart(NamedTuple):
    """How far a version is from what is stored of its sample; NaN where a graph gives no number.

    Args:
        features: largest difference of one, over the largest of all.
        scores: largest difference of one.
    """

    features: float
    scores: float

    def passes(self, precision: Precision) -> bool:
        """Whether the version is ready."""
        return self.features <= tolerance(precision) and self.scores <= TOLERANCE


def tolerance(precision: Precision) -> float:
    """Largest difference of features that passes; with it, of scores, which of a second graph are the head's alone."""
    return TOLERANCE if precision == FLOAT else SECOND_TOLERANCES[precision]


def differences(
    sample: Sample, shape: Preprocess, backbone: Session, head: Session, precision: Precision = FLOAT
) -> Apart:
    """What the graphs say now of the sample, against what is stored.

    Of a second graph, whose features may differ by a step, the head is asked about the stored ones of the first.

    Raises:
        BadImage: a picture cannot be decoded.
        ValueError: the sample has no features of that precision.
    """
    said = sample.said
    wanted_KD = said.features_KD if precision == FLOAT else sample.second.get(precision)
    if wanted_KD is None:
        raise ValueError(f"expected features in {precision} in the sample; found none")
    pixels_KHWC = np.stack([preprocess.load(picture, shape) for picture in sample.pictures])
    features_KD = backbone.run(pixels_KHWC)[backbone.output_names.index("features")]
    scores_KC = head.run(features_KD if precision == FLOAT else said.features_KD)[
        head.output_names.index("probabilities")
    ]
    largest = max(float(np.abs(wanted_KD).max()), float(np.finfo(np.float32).tiny))
    return Apart(
        float(np.abs(features_KD - wanted_KD).max()) / largest, float(np.abs(scores_KC - said.scores_KC).max())
    )


def _problem(sample: Sample, model: Served, backbone: Session, head: Session) -> str | None:
    try:
        apart = differences(sample, model.spec.preprocess, backbone, head, model.precision)
    except BadImage as error:
        return f"found a picture that cannot be decoded here: {error.detail}"
    except ValueError as error:
        return str(error)
    if apart.passes(model.precision):
        return None
    return f"found features that are {apart.features:.3g} and scores that are {apart.scores:.3g} off"
