"""Samples of the tiny backbone, by plain numpy; right ones and wrong ones."""

from typing import Any

import numpy as np

from app.artifact import decoding, preprocess, sample
from app.artifact.sample import Said, Sample
from tests import factories
from tests.app import onnx_factories

PICTURES = tuple(
    sample.copy(decoding.decode(factories.png(seed=seed)), onnx_factories.preprocess()) for seed in range(2)
)


def pixels() -> Any:
    """Of the pictures, in the size of the tiny backbone."""
    return np.stack([preprocess.load(picture, onnx_factories.preprocess()) for picture in PICTURES])


def make(weight_CD: Any, bias_C: Any, *, off: float = 0.0, training: bool = True) -> Sample:
    """What a linear head says of two pictures; every score is `off` by so much."""
    features = onnx_factories.backbone_reference(pixels()).astype(np.float32)
    scores = np.float32(onnx_factories.softmax(features @ np.asarray(weight_CD).T + bias_C) + off)
    return Sample(PICTURES, training, Said(features, scores))
