"""Carries out a mapping on tensors: values copied, position embeddings interpolated, stems widened or summed."""

import math
from collections.abc import Mapping as MappingType

import torch
from torch import Tensor
from torch.nn import functional

from worker.backbones.mapping import Mapping, TensorSpec


def manifest(state: MappingType[str, Tensor]) -> list[TensorSpec]:
    """Names and shapes of a state dict, in its order."""
    return [
        TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in state.items()
    ]


def apply(mapping: Mapping, source: MappingType[str, Tensor], target: MappingType[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the target with every mapped value in it; `new` tensors keep the target's own values."""
    filled = dict(target)
    for entry in mapping.entries:
        if entry.source is None or entry.target is None:
            continue
        value, place = source[entry.source], target[entry.target]
        if entry.status == "resized":
            value = resize(value, place)
        filled[entry.target] = value.to(place.dtype)
    return filled


def resize(value: Tensor, place: Tensor) -> Tensor:
    """Brings a tensor to another shape where a defined way exists (see `worker.backbones.mapping.resizable`).

    Position embeddings are interpolated bicubically on their square grid, prefix tokens kept (arXiv 2010.11929, 3.2).
    A stem for one channel takes the sum of the three (what a grey image copied to three channels would give);
    one for three takes a third of the one in each.
    """
    if value.ndim == 4:
        return value.sum(1, keepdim=True) if place.shape[1] == 1 else value.expand(-1, 3, -1, -1) / 3
    old_prefix, old_side = _grid(value.shape[1])
    new_prefix, new_side = _grid(place.shape[1])
    if old_prefix != new_prefix:
        raise ValueError(
            f"expected {new_prefix} prefix tokens before a square grid, found {old_prefix} "
            f"({value.shape[1]} and {place.shape[1]} positions); use a checkpoint of the same kind of token"
        )
    prefix, grid = value[:, :old_prefix], value[:, old_prefix:]
    grid = grid.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2).float()
    grid = functional.interpolate(grid, size=(new_side, new_side), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([prefix, grid.permute(0, 2, 3, 1).flatten(1, 2).to(value.dtype)], dim=1)


def _grid(num_positions: int) -> tuple[int, int]:
    side = math.isqrt(num_positions)
    return num_positions - side * side, side
