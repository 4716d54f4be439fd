"""Real images through a real backbone."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from app.artifact import preprocess
from app.settings import Settings
from worker.backbones import features, prepared

EMOJI = Path(__file__).parents[3] / "examples" / "data" / "emoji.zip"


@pytest.fixture(scope="session")
def embed() -> Callable[[Sequence[bytes]], np.ndarray]:
    """Encoded images -> features of the starter backbone that `make setup` prepares."""
    backbone = prepared.find("timm/tf_efficientnet_lite0", [Settings().prepared])
    assert backbone is not None, "expected the starter backbones; run `make setup`"
    run = features.graph_extractor(backbone.graph, 2)

    def features_of(images: Sequence[bytes]) -> np.ndarray:
        pixels = [preprocess.load(data, backbone.preprocess, 10**8) for data in images]
        return np.concatenate([run(np.stack(pixels[start : start + 16])) for start in range(0, len(pixels), 16)])

    return features_of


@pytest.fixture(scope="session")
def emoji(embed: Callable[[Sequence[bytes]], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the committed emoji."""
    with zipfile.ZipFile(EMOJI) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        images = [archive.read(name) for name in names]
    classes = sorted({name.split("/")[-2] for name in names})
    return embed(images), np.array([classes.index(name.split("/")[-2]) for name in names])
