"""How well a model's scores tell images of its classes from others. A full report has it.

Honest strangers are rare: a transfer has images of its own classes alone. Where the job's dataset holds other classes
(`zero_shot`), theirs are taken; else patterns that no camera has seen, and the report says `synthetic`: a
model that passes may still take a photo of something else for one of its classes.

Shape legend: N familiar items, M strange ones, P that were learned from, D features, H x W pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifact.preprocess import Preprocess
from worker.backbones import features
from worker.contract.task import Float
from worker.evaluate import strangers
from worker.evaluate.served_graph import ServedGraph

# With fewer of either kind the figure is chance.
MIN_ITEMS = 30
NUM_PATTERNS = 60
SYNTHETIC = "noise, clouds, stripes, gradients and shapes, made by a program"
OTHERS = "test images of the dataset's classes that the model does not have"


@dataclass(frozen=True)
class Strangers:
    """Features of images that show none of the classes, and what they are."""

    feats_MD: Float
    what: str
    synthetic: bool


def patterns(served: ServedGraph, seed: int, threads: int) -> Strangers:
    """Synthetic strangers, seen by the graph that is published."""
    images = draw(served.shape, NUM_PATTERNS, seed)
    run = features.graph_extractor(served.graph, threads)
    batches = np.array_split(images, -(-len(images) // features.BATCH_SIZE))
    return Strangers(np.concatenate([run(batch) for batch in batches]), SYNTHETIC, synthetic=True)


def section(served: ServedGraph, familiar_ND: Float, found: Strangers, learned_PD: Float | None) -> dict[str, Any]:
    """The report's part.

    Args:
        served: whose scores are asked.
        familiar_ND: features of test images of its classes.
        found: the strangers.
        learned_PD: features of what was learned from, or of a part of it; None where they are not at hand.
    """
    sides = familiar_ND, found.feats_MD
    answers = [served.answers(feats) for feats in sides]
    probabilities = [said.max(1) for said, _ in answers]
    energies = [strangers.energy(logits.astype(np.float64)) for _, logits in answers]
    nearest = None
    if learned_PD is not None and len(learned_PD):
        nearest = strangers.auroc(*(strangers.nearness(feats, learned_PD) for feats in sides))
    return {
        "num_familiar": len(familiar_ND),
        "num_strange": len(found.feats_MD),
        "what": found.what,
        "synthetic": found.synthetic,
        "auroc": {
            "max_softmax": strangers.auroc(*probabilities),
            "energy": strangers.auroc(*energies),
            "nearest": nearest,
        },
    }


def draw(shape: Preprocess, count: int, seed: int) -> NDArray[np.uint8]:
    """Patterns of five kinds in turn: equal seeds give equal images.

    Shape:
        result: [count, H, W, 3]
    """
    generator = np.random.default_rng(seed)
    kinds = (_noise, _clouds, _stripes, _gradient, _shapes)
    return np.stack([kinds[place % len(kinds)](generator, shape.height, shape.width) for place in range(count)])


def _noise(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _clouds(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Coarse noise, drawn between its points."""
    side = int(generator.integers(3, 9))
    coarse = generator.uniform(0, 255, (side, side, 3))
    along = [np.linspace(0, side - 1, size) for size in (height, width)]
    low = [np.minimum(places.astype(int), side - 2) for places in along]
    share = [places - floor for places, floor in zip(along, low, strict=True)]
    columns = coarse[:, low[1]] * (1 - share[1])[:, None] + coarse[:, low[1] + 1] * share[1][:, None]
    rows = columns[low[0]] * (1 - share[0])[:, None, None] + columns[low[0] + 1] * share[0][:, None, None]
    return np.asarray(rows, np.uint8)


def _stripes(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    angle, wave = generator.uniform(0, np.pi), generator.integers(4, 40)
    dark = (rows * np.sin(angle) + columns * np.cos(angle)) // wave % 2 == 0
    colours = generator.integers(0, 256, (2, 3), dtype=np.uint8)
    image: NDArray[np.uint8] = np.where(dark[..., None], colours[0], colours[1])
    return image


def _gradient(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    first, second, third = generator.uniform(0, 255, (3, 3))
    return np.asarray(first + (second - first) * down / 2 + (third - first) * across / 2, np.uint8)


def _shapes(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = generator.integers(0, 256, 3, dtype=np.uint8)
    for _ in range(int(generator.integers(2, 7))):
        top, left = generator.integers(0, height), generator.integers(0, width)
        tall, wide = generator.integers(height // 8, height // 2), generator.integers(width // 8, width // 2)
        image[top : top + tall, left : left + wide] = generator.integers(0, 256, 3, dtype=np.uint8)
    return image
