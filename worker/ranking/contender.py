"""One candidate backbone in a ranking: opened, timed, and looked at on images. No torch on a CPU.

Shape legend: N images, D features, C classes, Z classes of the pretraining.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact import tensors
from app.artifact.scores import softmax
from app.serving.runtime import Session
from worker.attempt.context import RunContext
from worker.backbones import features
from worker.backbones.extraction import Extraction
from worker.backbones.features import Extractor
from worker.backbones.prepared import Prepared
from worker.contract.candidate import BLIND
from worker.data.samples import Index
from worker.ranking import evidence, transferability
from worker.ranking.evidence import Evidence

Rows = NDArray[np.int64]

# What is timed: the first images, which are cached for what follows.
PILOT_IMAGES = 16
# An extraction of fewer images than this tells the pace no better than the pilot.
STEADY_IMAGES = 64
LATENCY_RUNS, LATENCY_SECONDS = 9, 0.3
NO_CLASSIFIER = "these weights came without the classifier of their pretraining"


@dataclass(frozen=True)
class Data:
    """The images of a ranking; the test split is not in here.

    Args:
        rows: all images that are ranked on.
        first: the same or fewer: those of stage 1.
        labels_N: of the whole index.
    """

    index: Index
    rows: Rows
    first: Rows
    labels_N: NDArray[np.int64]
    num_classes: int
    seed: int

    def groups(self, rows: Rows) -> NDArray[np.int64]:
        """Copies of one picture share a number."""
        return self.index.group[rows]


@dataclass(frozen=True)
class Look:
    """What was found on some images, and the time that scoring took."""

    rows: Rows
    evidence: Evidence
    scoring_seconds: float


@dataclass
class Contender:
    """A backbone on its way through the stages.

    Args:
        name: of the catalogue, or the project's own.
        top1: its accuracy on ImageNet in per cent; None where unknown.
        stages: what was found in each stage that it took part in.
        reasons: how it stood beside the others of each stage.
        seconds: that it took so far.
        notes: what else is to be said of its place.
    """

    name: str
    top1: float | None
    stages: dict[int, Look] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_per_image: float = 0.0
    latency_ms: float = 0.0
    information: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _backbone: Prepared | None = None
    _extractor: Extractor | None = None

    @property
    def backbone(self) -> Prepared:
        """The prepared backbone; there once it was opened."""
        assert self._backbone is not None, f"{self.name} was not opened"
        return self._backbone

    @property
    def stage(self) -> int:
        """The last one that it took part in; 0 for none."""
        return max(self.stages, default=0)

    @property
    def is_timed(self) -> bool:
        """Whether it was opened, and its pace is known."""
        return self.seconds_per_image > 0

    @property
    def cost(self) -> float:
        """What an image costs beside other backbones; no stop watch, so that a busy machine gives the same order."""
        shape = self.backbone.preprocess
        return float(shape.height * shape.width * self.backbone.num_params)

    def open(self, context: RunContext, backbone: Prepared, image: NDArray[np.uint8]) -> None:
        """Loads the graph and measures one image through it, as the server would run it.

        Shape:
            image: [H, W, 3], what the backbone takes
        """
        session = Session(backbone.graph, threads=context.settings.num_compute_threads)
        self._backbone = backbone
        self.latency_ms = 1000 * latency_seconds(session, image[None])
        if context.device == "cpu":
            self._extractor = lambda images: session.run(images)[0]
        else:
            self._extractor = features.open_extractor(context, backbone)
            # A GPU's first batch pays for choosing kernels; the pilot's pace must not.
            self._extractor(np.repeat(image[None], features.BATCH_SIZE, axis=0))

    def close(self) -> None:
        """Gives the graph's memory back."""
        self._extractor = None

    def pilot(self, context: RunContext, data: Data, progress: float) -> None:
        """Times decoding and forward of a few images; what is new is cached, so that nothing is done twice."""
        rows = data.first[:PILOT_IMAGES]
        if features.num_missing(context, data.index, rows, self.backbone) == len(rows):
            began = time.monotonic()
            self._features(context, data, rows, ("time", progress, progress))
        else:
            began = time.monotonic()
            for _, images in features.decoded(context, data.index, rows, self.backbone.preprocess):
                self._run(context, images)
        self.seconds_per_image = (time.monotonic() - began) / len(rows)

    def look(self, context: RunContext, data: Data, stage: int, share: tuple[str, float, float]) -> Extraction | str:
        """Features and what they say, in stage 1 of the first images, in stage 2 of all.

        Returns:
            what the features took; or what is wrong with them, so that nothing can be said.
        """
        rows = data.first if stage == 1 else data.rows
        feats_ND, extraction = self._features(context, data, rows, share)
        if extraction.num_extracted >= STEADY_IMAGES:
            self.seconds_per_image = extraction.seconds / extraction.num_extracted
        if not np.isfinite(feats_ND).all():
            return "its features are not finite numbers; check its weights"
        if (feats_ND == feats_ND[0]).all():
            return "its features are the same for every image; check its weights"
        began = time.monotonic()
        found = evidence.look(feats_ND, data.labels_N[rows], data.groups(rows), data.num_classes, data.seed)
        if not self.information:
            first_ND = feats_ND[np.isin(rows, data.first)]
            is_blind = not evidence.can_be_right(data.labels_N[data.first], data.groups(data.first)).any()
            self.information = (
                no_information(len(data.first))
                if is_blind
                else information(first_ND, data.labels_N[data.first], self.backbone, data.seed)
            )
        self.stages[stage] = Look(rows, found, time.monotonic() - began)
        return extraction

    def num_missing(self, context: RunContext, data: Data, stage: int) -> int:
        """How many images a stage would have to extract."""
        return features.num_missing(context, data.index, data.first if stage == 1 else data.rows, self.backbone)

    def _features(
        self, context: RunContext, data: Data, rows: Rows, share: tuple[str, float, float]
    ) -> tuple[NDArray[np.float32], Extraction]:
        return features.pooled(context, data.index, rows, self.backbone, share, lambda: self._opened(context))

    def _run(self, context: RunContext, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._opened(context)(images)

    def _opened(self, context: RunContext) -> Extractor:
        if self._extractor is None:
            self._extractor = features.open_extractor(context, self.backbone)
        return self._extractor


def latency_seconds(session: Session, image_1HWC: NDArray[np.uint8]) -> float:
    """Median of some runs of one image after one to warm up.

    Shape:
        image_1HWC: [1, H, W, 3]
    """
    session.run(image_1HWC)
    took: list[float] = []
    while len(took) < LATENCY_RUNS and (sum(took) < LATENCY_SECONDS or not took):
        began = time.perf_counter()
        session.run(image_1HWC)
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def no_information(num_images: int) -> dict[str, Any]:
    """Where each class has one picture: any other labels would give the same scores, so they say nothing of these."""
    names = ("logme", "nleep", "h_score", "nce", "leep")
    return {**dict.fromkeys(names), "reasons": dict.fromkeys(names, BLIND), "num_images": num_images}


def information(
    feats_ND: NDArray[np.float32], labels_N: NDArray[np.int64], backbone: Prepared, seed: int
) -> dict[str, Any]:
    """The scores that order nothing, on the same images for every candidate; null with a reason where there is none.

    Shape:
        feats_ND: [N, D]; labels_N: [N]
    """
    basis = transferability.centred_basis(feats_ND)
    found: dict[str, float | None] = {
        "logme": transferability.logme(feats_ND, labels_N),
        "nleep": transferability.nleep(feats_ND, labels_N, seed, basis=basis),
        "h_score": transferability.h_score(feats_ND, labels_N, basis=basis),
        "nce": None,
        "leep": None,
    }
    reasons = {}
    if backbone.classifier is None:
        reasons = {"nce": NO_CLASSIFIER, "leep": NO_CLASSIFIER}
    else:
        rows = tensors.load(backbone.classifier)
        logits_NZ = feats_ND @ rows["weight"].T.astype(np.float32) + rows.get("bias", np.zeros(1)).astype(np.float32)
        found["nce"] = transferability.nce(logits_NZ.argmax(1), labels_N)
        found["leep"] = transferability.leep(softmax(logits_NZ.astype(np.float64)), labels_N)
    return {**found, "reasons": reasons, "num_images": len(labels_N)}
