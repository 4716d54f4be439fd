"""A version with second graphs, each of them another network, so that nobody can mistake one for the other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.artifact import precisions, sample
from app.artifact.spec import version_of
from app.serving import trial
from tests import factories
from tests.app import bundle_factories, onnx_factories, sample_factories
from tests.inference import pixels

SEEDS = {"int8": 13, "fp16": 14}
GRAPHS = {precision: onnx_factories.backbone_bytes(seed=seed) for precision, seed in SEEDS.items()}
assert tuple(SEEDS) == precisions.SECOND


def scores(version: int, precision: str) -> Any:
    """What a version says of the pictures, by plain numpy."""
    weight_CD, bias_C = factories.head_weights(version, 3)
    return onnx_factories.softmax(features(pixels(), precision) @ weight_CD.T + bias_C)


def features(images: Any, precision: str) -> Any:
    """Of one of the graphs."""
    return onnx_factories.backbone_reference(images, seed=SEEDS.get(precision, 0))


def publish(state: Any, folder: Path, *second: precisions.Second, off: float = 0.75, name: str = "tiny") -> None:
    """Version 1 has second graphs, a share of their tolerance off what its sample says; version 2 has none."""
    made = sample_factories.make(*factories.head_weights(1, 3))
    told = {
        one: np.float32(features(sample_factories.pixels(), one) * (1 + off * trial.tolerance(one))) for one in second
    }
    paths = {one: folder / one for one in second}
    for one, path in paths.items():
        path.write_bytes(GRAPHS[one])
    with state.database.write() as session:
        of = factories.model(session, name, 0)
        described = {"spec_version": version_of(second), **dict.fromkeys(second, onnx_factories.MEASURED)}
        parts = {"second": paths, "sample": sample.pack(replace(made, second=told))}
        bundle_factories.publish(session, state.storage, folder / "made", of, 1, described=described, parts=parts)
        bundle_factories.publish(session, state.storage, folder / "made", of, 2)
        of.last_version = 2
