"""Trains a small network on cached features of two domains: labels from one, pictures without labels from the other.

One hidden layer (the bottleneck, 256 units) and a classifier, on features that stay as they are; a CPU takes seconds.
What pulls the domains together is the objective: class confusion on the target (MCC), a domain classifier on the
bottleneck (DANN), both, or a second classifier that looks for disagreement (MDD). The last step is kept: an earlier
one could only be chosen by labels that nobody has.

Shape legend: N source items, M target items, B of a batch, D features, H hidden units, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from app.errors import JobFailure
from worker.contract.network_head import NetworkHead
from worker.contract.task import Float
from worker.domains import losses
from worker.solvers import logistic

Objective = Literal["mcc", "dann", "dann_mcc", "mdd"]

HIDDEN = 256
DROPOUT = 0.5
BATCH = 64
STEPS = 1500
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 5e-3, 0.9, 1e-3
# Gradient of the disparity on the bottleneck, as in the paper's code: an adversary of 0.1 there.
MDD_FACTOR = 0.1
# As in `worker.fine_tuning.start`: a feature that hardly moves on the source must not be blown up on the target.
MIN_SCALE = 0.5


@dataclass(frozen=True)
class _Parts:
    """Bottleneck, classifier, and the adversary of the objective where it has one."""

    bottleneck: nn.Module
    classifier: nn.Linear
    adversary: nn.Module | None


def train(
    objective: Objective,
    source_ND: Float,
    labels_N: NDArray[np.int64],
    target_MD: Float,
    num_classes: int,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    *,
    steps: int,
) -> NetworkHead:
    """Trains for a fixed number of steps.

    Args:
        objective: what pulls the domains together.
        source_ND: features of the labelled domain.
        labels_N: their classes.
        target_MD: features of the other domain.
        num_classes: C.
        seed: of weights, order and dropout.
        on_step: called with the number of steps done; whatever it raises ends the training.
        steps: of the optimiser.

    Shape:
        source_ND: [N, D]
        labels_N: [N]
        target_MD: [M, D]

    Raises:
        JobFailure: diverged.
    """
    mean_D, scale_D = scales(source_ND)
    source, target = (
        torch.from_numpy(np.ascontiguousarray((feats - mean_D) / scale_D, np.float32))
        for feats in (source_ND, target_MD)
    )
    labels = torch.from_numpy(labels_N)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _parts(objective, source.shape[1], num_classes)
        parameters = [value for part in _modules(parts) for value in part.parameters()]
        optimizer = torch.optim.SGD(
            parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True
        )
        for step in range(steps):
            fraction = step / steps
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * fraction))
            own, other = (torch.randint(len(feats), (BATCH,)) for feats in (source, target))
            loss = _loss(objective, parts, source[own], labels[own], target[other], losses.ramp(fraction))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if on_step is not None:
                on_step(step + 1)
    if not all(bool(torch.isfinite(value).all()) for value in parameters):
        raise JobFailure("diverged", f"expected finite weights from {objective}; found NaN or infinity; use other data")
    hidden = parts.bottleneck[0]  # type: ignore[index]
    arrays = (hidden.weight, hidden.bias, parts.classifier.weight, parts.classifier.bias)
    hidden_HD, hidden_H, weight_CH, bias_C = (value.detach().numpy().copy() for value in arrays)
    return NetworkHead(hidden_HD, hidden_H, weight_CH, bias_C, mean_D.astype(np.float32), scale_D.astype(np.float32))


def scales(feats_ND: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale that the network's input is standardised with; no scale is under half of their root mean square.

    Shape:
        feats_ND: [N, D]
        result: [D], [D]
    """
    mean_D, scale_D = logistic.standardise(feats_ND)
    return mean_D, np.maximum(scale_D, MIN_SCALE * np.sqrt((scale_D**2).mean()))


def _parts(objective: Objective, num_features: int, num_classes: int) -> _Parts:
    bottleneck = nn.Sequential(nn.Linear(num_features, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT))
    classifier = nn.Linear(HIDDEN, num_classes)
    if objective == "mcc":
        return _Parts(bottleneck, classifier, None)
    width = num_classes if objective == "mdd" else 1
    adversary = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))
    return _Parts(bottleneck, classifier, adversary)


def _modules(parts: _Parts) -> list[nn.Module]:
    return [part for part in (parts.bottleneck, parts.classifier, parts.adversary) if part is not None]


def _loss(
    objective: Objective, parts: _Parts, source_BD: Tensor, labels_B: Tensor, target_BD: Tensor, strength: float
) -> Tensor:
    """Cross-entropy on the source, and the objective."""
    # Both domains in one pass: half as many operations, and on a processor these are so small that they are the cost.
    both_BH = parts.bottleneck(torch.cat([source_BD, target_BD]))
    source_BC, target_BC = parts.classifier(both_BH).chunk(2)
    learned: Tensor = functional.cross_entropy(source_BC, labels_B)
    if objective == "mcc":
        return learned + losses.class_confusion(target_BC)
    assert parts.adversary is not None
    factor = MDD_FACTOR * strength if objective == "mdd" else strength
    source_BA, target_BA = parts.adversary(losses.reverse(both_BH, factor)).chunk(2)
    if objective == "mdd":
        return learned + losses.margin_disparity(source_BC, source_BA, target_BC, target_BA)
    learned = learned + losses.domain_confusion(source_BA[:, 0], target_BA[:, 0])
    return learned + losses.class_confusion(target_BC) if objective == "dann_mcc" else learned
