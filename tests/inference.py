"""One published model, some pictures, and what it says of them by plain numpy: for every door that answers."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from app.artifact import preprocess
from tests import factories
from tests.app import onnx_factories

NAME = "tiny"
LABELS = ["cat", "dog", "owl"]
PICTURES = [factories.png((40 * number, 250 - 40 * number, 90), seed=number) for number in range(5)]


def publish(
    state: Any, folder: Path, name: str = NAME, num_versions: int = 2, project_id: str = factories.PROJECT
) -> None:
    """A model with versions 1 to n, in the database and storage of a process or a service."""
    with state.database.write() as session:
        of = factories.model(session, name, 0, project_id=project_id)
        for number in range(1, num_versions + 1):
            factories.published(session, state.storage, folder, of, number)


def publish_heavy(state: Any, folder: Path, name: str, project: str = factories.PROJECT, num_layers: int = 200) -> None:
    """A model on a slow backbone of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / f"{name}.onnx"
    graph.write_bytes(onnx_factories.heavy_backbone_bytes(num_layers))
    with state.database.write() as session:
        of = factories.model(session, name, 0, project_id=project)
        factories.published(session, state.storage, folder / name, of, 1, shared=False, parts={"backbone": graph})


@cache
def pixels() -> Any:
    """The pictures in the model's size."""
    return np.stack([preprocess.load(data, onnx_factories.preprocess()) for data in PICTURES])


def features() -> Any:
    """[N, D], of every version."""
    return onnx_factories.backbone_reference(pixels())


def probabilities(version: int) -> Any:
    """[N, C]."""
    weight_CD, bias_C = factories.head_weights(version, len(LABELS))
    return onnx_factories.softmax(features() @ weight_CD.T + bias_C)
