"""Optimisers and learning-rate schedules of fine-tuning, with the defaults of LP-FT (arXiv 2202.10054) and AutoGluon.

A schedule is a pure function of the finished fraction, so that a resumed run needs no schedule state.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from worker.backbones import split

# At least so many steps in an epoch where the data is small: with fewer the head start of the probe is all there is.
MIN_STEPS_PER_EPOCH = 8
MIN_BATCH = 8
# A short pilot of a good rate may end a little above the start; one that ends further above does harm.
HARM = 1.1


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How a network is trained.

    Args:
        kind: of optimiser.
        rates: learning rates to choose from by a pilot; a single one needs none.
        lower_rates: tried after them, largest first, as long as all harm.
        batch_size: largest.
        weight_decay: on matrices and kernels; biases and norms are free of it.
        layer_decay: each stage nearer to the input learns by this factor slower.
        warmup: share of the steps.
        clip: largest norm of the gradient; None leaves it alone.
        head_scale: factor on the head's learning rate.
        patience: epochs without gain after which training ends.
    """

    kind: Literal["sgd", "adamw"]
    rates: tuple[float, ...]
    batch_size: int
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    warmup: float = 0.0
    clip: float | None = None
    momentum: float = 0.9
    lower_rates: tuple[float, ...] = ()
    head_scale: float = 1.0
    patience: int = 5


# LP-FT's repository: SGD 0.9, no weight decay, batch 64, cosine. The grid is ours; theirs goes down to 3e-7.
CONVOLUTIONAL = Optimisation("sgd", (3e-4, 1e-3, 3e-3), 64, lower_rates=(1e-4, 3e-5))
# AutoGluon's multimodal default for transformers.
TRANSFORMER = Optimisation("adamw", (1e-4,), 128, weight_decay=1e-3, layer_decay=0.9, warmup=0.1, clip=1.0)
# Factors around 1 (SSF's repository: AdamW, 1e-2 for many tasks; on digits 3e-3 ended as high and shook less); no
# decay, which would draw alpha to 0. The head stands at the probe already: it learns at the rate of a network's own
# weights. No pilot, and more patience: at a good rate the loss is above the start's for 5 to 10 epochs, so that a short
# look prefers a rate that moves nothing.
FACTORS = Optimisation("adamw", (3e-3,), 64, warmup=0.1, clip=1.0, head_scale=0.1, patience=10)
LOW_RANK = Optimisation(
    "adamw", (3e-4, 1e-3), 64, weight_decay=1e-3, warmup=0.1, clip=1.0, lower_rates=(1e-4,), head_scale=0.3
)


def for_network(network: nn.Module) -> Optimisation:
    """SGD for networks with batch norm, AdamW with layer decay for those without (transformers and their kin)."""
    return CONVOLUTIONAL if any(isinstance(layer, _BatchNorm) for layer in network.modules()) else TRANSFORMER


def batch_size(num_images: int, largest: int) -> int:
    """A power of two up to `largest` that leaves MIN_STEPS_PER_EPOCH steps where there are enough images."""
    wanted = max(MIN_BATCH, num_images // MIN_STEPS_PER_EPOCH)
    return min(largest, 1 << (wanted.bit_length() - 1))


def next_rate(settings: Optimisation, losses: Mapping[float, float], start_loss: float) -> float | None:
    """The learning rate whose pilot comes next, or None.

    Args:
        settings: with the rates.
        losses: on the hold-out after each pilot so far; infinite where it diverged.
        start_loss: the same before any training.
    """
    for rate in settings.rates:
        if rate not in losses:
            return rate
    if min(losses.values()) <= HARM * start_loss:
        return None
    return next((rate for rate in settings.lower_rates if rate not in losses), None)


def stage_scales(network: nn.Module, layer_decay: float) -> dict[int, float]:
    """Factor on the learning rate of each parameter, by its `id`: 1 at the last stage, smaller towards the input.

    What belongs to no stage (class token, positions) enters first and learns slowest.
    """
    parts = [part for _, part in split.stages(network) if any(True for _ in part.parameters())]
    own = {id(parameter): layer_decay ** len(parts) for parameter in network.parameters()}
    for index, part in enumerate(parts):
        own |= dict.fromkeys(map(id, part.parameters()), layer_decay ** (len(parts) - 1 - index))
    return own


def build(
    settings: Optimisation, parameters: Iterable[nn.Parameter], scales: dict[int, float], rate: float
) -> Optimizer:
    """The optimiser over `parameters`, grouped by rate and by whether they decay; `scale` is a group's full rate."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in parameters:
        decays = parameter.ndim > 1 and settings.weight_decay > 0
        groups.setdefault((scales.get(id(parameter), 1.0), decays), []).append(parameter)
    options: list[dict[str, Any]] = [
        {
            "params": members,
            "lr": rate * scale,
            "weight_decay": settings.weight_decay if decays else 0.0,
            "scale": rate * scale,
        }
        for (scale, decays), members in sorted(groups.items(), key=lambda item: item[0])
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(options, lr=rate, momentum=settings.momentum)
    return torch.optim.AdamW(options, lr=rate)


def set_factor(optimizer: Optimizer, factor: float) -> None:
    """Brings every group to `factor` of its own full learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["scale"] * factor


def cosine(fraction: float, warmup: float = 0.0) -> float:
    """Linear from 0 to 1 over the first `warmup` of the run, then half a cosine down to 0 (arXiv 1608.03983, eq. 5)."""
    if fraction < warmup:
        return fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / (1 - warmup))))
