"""Networks with random weights: a small CNN, and a backbone's architecture at a side that its time allows.

Shape legend: N items, D features, C classes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from app import backbones as catalogue
from app.artifact.preprocess import Preprocess
from app.errors import JobFailure
from worker.backbones import networks
from worker.backbones.export import FromPixels
from worker.contract.task import Task
from worker.training import inputs

WIDTHS = (32, 64, 128, 256)
SIDES = (224, 192, 160, 128, 96)
TIMED_BATCH = 8


class Classifier(nn.Module):
    """Pixels -> network -> logits."""

    def __init__(self, trunk: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.trunk(images))
        return logits


def small_network() -> nn.Module:
    """Four convolutions with batch norm, halved in size between them, averaged: 0.4 M parameters."""
    layers: list[nn.Module] = []
    for before, width in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small(task: Task, side: int) -> tuple[Classifier, Preprocess]:
    """The small CNN for images of a side, and what it wants them to look like."""
    shape = replace(task.backbone.preprocess, height=side, width=side, resize=side, mean=(0.5,) * 3, std=(0.25,) * 3)
    with seeded(task.seed):
        return Classifier(FromPixels(small_network(), shape), WIDTHS[-1], task.num_classes), shape


def architecture(task: Task, shape: Preprocess) -> Classifier:
    """The architecture with new weights, and a new head.

    Raises:
        ValueError: it does not take this size.
    """
    backbone = task.backbone
    entry = catalogue.find(backbone.architecture if backbone.provider == "user" else backbone.name)
    if entry is None:
        raise JobFailure("internal", f"expected {backbone.name} in the catalogue; found none; prepare it again")
    trunk = networks.feature_module(networks.build(entry, None, task.seed), entry.provider)
    try:
        with torch.no_grad():
            trunk.eval()(torch.zeros(1, 3, shape.height, shape.width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"{backbone.name} does not take {shape.height} px: {error}") from error
    with seeded(task.seed):
        return Classifier(FromPixels(trunk, shape), backbone.feature_dim, task.num_classes)


def sides(task: Task) -> list[int]:
    """Input sides to choose from, largest first: the network's own, and smaller ones where it takes them."""
    own = task.backbone.preprocess.height
    smaller = [side for side in SIDES if side < own]
    try:
        if smaller:
            architecture(task, at_side(task.backbone.preprocess, smaller[-1]))
    except ValueError:
        smaller = []
    return [own, *smaller]


def seconds_per_image(task: Task, side: int) -> float:
    """Forward and backward of the architecture at a side, timed once after one to warm up."""
    network = architecture(task, at_side(task.backbone.preprocess, side)).to(task.context.device).train()
    images = torch.zeros(TIMED_BATCH, side, side, 3, dtype=torch.uint8, device=task.context.device)
    began = 0.0
    for _ in range(2):
        began = time.monotonic()
        network(images).square().mean().backward()
        if task.context.device == "cuda":
            torch.cuda.synchronize()
    return (time.monotonic() - began) / TIMED_BATCH


def at_side(own: Preprocess, side: int) -> Preprocess:
    """The input at another side; the own one as it is."""
    return own if side == own.height else inputs.at_resolution(own, side)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws initial weights from a seed and leaves torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
