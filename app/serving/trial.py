"""A version is tried on its stored sample before it answers: the way of a request, to scores that are known.

A graph that was damaged, another library or another processor that computes something else would otherwise be served
and nobody would notice. What has been tried is a pair of loaded sessions; when either is loaded again, so is the trial.
"""

import math
import threading
import time
from typing import NamedTuple

import numpy as np

from app.artifact import preprocess
from app.artifact.precisions import FLOAT, FP16, INT8, Precision, Second
from app.artifact.preprocess import Preprocess
from app.artifact.sample import Sample
from app.artifact.spec import BundleError
from app.errors import BadImage, NotFound, NotReady
from app.serving.model import Served
from app.serving.runtime import Session, failures

# Between scores of the same picture, as between all doors that answer, and between features as a share of the largest:
# of an image that a steep head has learned from, scores are 0 and 1 whatever becomes of its features. Another order of
# sums moves either by 1e-6.
TOLERANCE = 1e-4
# Of features of the other graphs. In 8 bits a value that another processor rounds by 1e-7 otherwise comes to lie a step
# further, and with it what is computed from it: the same graph without fused operators, which rounds in other places,
# was 0.03 off. In half precision they are 2e-5 off without fused operators, since onnxruntime computes them in float32
# on a processor, which is where they were stored. A GPU rounds each of them: rehearsed so (`worker.publication.halve`),
# 160 pairs of pictures, four starter backbones, they were 0.018 off at most; a rehearsal without fused operators moved
# by 7e-4.
SECOND_TOLERANCES: dict[Second, float] = {INT8: 0.05, FP16: 0.04}
# Pairs of sessions remembered for each version: one core or all, and some that are loaded anew.
NUM_PAIRS = 8
# A version that has failed is loaded anew, and tried again, for the first call after so long: not for each one.
RETRY_SECONDS = 5.0

Key = tuple[str, ...]


class Failure(NamedTuple):
    """Why a version is not ready, and since when by `time.monotonic`."""

    reason: str
    since: float


class Trials:
    """Which versions of this process have passed their trial, and which have not. Safe for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Replaced, never changed: it is read without the lock.
        self._passed: dict[Key, tuple[tuple[int, int], ...]] = {}
        self._failed: dict[Key, Failure] = {}

    def passed(self, model: Served) -> bool:
        """Whether the version has been tried since the process began, and last with success."""
        return model.key in self._passed and model.key not in self._failed

    def failure(self, model: Served) -> str | None:
        """Why the version is not ready; None where nothing is known against it."""
        found = self._failed.get(model.key)
        return None if found is None else found.reason

    def known(self, model: Served, backbone: Session, head: Session) -> bool:
        """Whether the version has passed on these sessions; a look that takes a microsecond."""
        return (backbone.number, head.number) in self._passed.get(model.key, ())

    def trusted(self, backbone: Session) -> bool:
        """Whether any version has passed on this session."""
        with self._lock:
            return any(backbone.number == one for pairs in self._passed.values() for one, _ in pairs)

    def refusal(self, model: Served) -> NotReady | None:
        """What callers of a version are told that has failed a moment ago; None where it is to be tried (again)."""
        found = self._failed.get(model.key)
        if found is None or time.monotonic() - found.since >= RETRY_SECONDS:
            return None
        return _refusal(model, found.reason)

    def check_lately(self, model: Served) -> None:
        """Refuses a version that has failed a moment ago, before anything is loaded for it.

        Raises:
            NotReady: it has; with the seconds after which it is tried again.
        """
        if refusal := self.refusal(model):
            raise refusal

    def check(self, model: Served, backbone: Session, head: Session) -> None:
        """Tries the version on these sessions, unless it has passed on them before.

        Raises:
            NotReady: its scores are not those that were stored.
        """
        if self.known(model, backbone, head):
            return
        problem = _problem(model, backbone, head)
        if problem is not None:
            raise self.failed(model, problem)
        with self._lock:
            self._failed.pop(model.key, None)
            pairs = self._passed.get(model.key, ())[1 - NUM_PAIRS :]
            self._passed[model.key] = (*pairs, (backbone.number, head.number))

    def failed(self, model: Served, reason: str) -> NotReady:
        """Notes that a version cannot be served, and why; returns what its callers are told."""
        with self._lock:
            self._failed[model.key] = Failure(reason, time.monotonic())
        return _refusal(model, reason)


def _refusal(model: Served, reason: str) -> NotReady:
    return NotReady(
        "expected a version whose graphs load, and say of its stored sample what they said when it was published, "
        f"within {tolerance(model.precision):g}; {reason}; restore its files, or serve it with the libraries and on "
        "the kind of processor that it was published with",
        retry_after_seconds=math.ceil(RETRY_SECONDS),
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


def _problem(model: Served, backbone: Session, head: Session) -> str | None:
    """What is wrong with the version, in words; None where nothing is, or it has no sample."""
    try:
        sample = model.sample() if model.sample is not None else None
        if sample is None:
            return None
        apart = differences(sample, model.spec.preprocess, backbone, head, model.precision)
    except BadImage as error:
        return f"found a picture that cannot be decoded here: {error.detail}"
    except (BundleError, NotFound, ValueError) as error:
        return str(error)
    except failures() as error:
        return f"found a graph that does not run here: {error}"
    if apart.passes(model.precision):
        return None
    return f"found features that are {apart.features:.3g} and scores that are {apart.scores:.3g} off"
