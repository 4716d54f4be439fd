"""How far training moved a network, stage by stage: linear CKA of each part's output before and after.

A frozen prefix is 1 by construction; what moved shows where training has rewritten the network (arXiv 1905.00414).

Shape legend: N images, D channels of a stage.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.artifact.preprocess import Preprocess
from worker.backbones import networks
from worker.backbones import split as splitting
from worker.backbones.export import FromPixels
from worker.backbones.prepared import Prepared
from worker.contract.task import Float
from worker.evaluate import distortion
from worker.fine_tuning.forward import restore_at

Images = NDArray[np.uint8]
FEATURES = "features"


class NotAlike(ValueError):
    """The trained weights do not fit the network that they came from."""


def pair(backbone: Prepared, shape: Preprocess, state: Path) -> tuple[FromPixels, FromPixels]:
    """The network as it came and as it was trained, both for one input size.

    Args:
        backbone: that training began with.
        shape: of the served input.
        state: the trained weights.

    Raises:
        NotAlike: some of them have no place in it: an adapter may have added biases.
    """
    before, after = restore_at(backbone, shape), restore_at(backbone, shape)
    inner: nn.Module = after.network  # type: ignore[assignment]
    try:
        inner.load_state_dict(networks.read_state(state), strict=True)
    except RuntimeError as error:
        raise NotAlike(f"the trained network has other tensors than {backbone.name}") from error
    return FromPixels(before, shape).eval(), FromPixels(after.eval(), shape).eval()


def compare(networks_: tuple[FromPixels, FromPixels], batches: Iterable[Images]) -> tuple[dict[str, float], float]:
    """Linear CKA of each stage in their order, the features that are served at last; their mean relative change.

    Raises:
        ValueError: fewer than four images.
    """
    found: tuple[dict[str, list[Float]], ...] = ({}, {})
    for images in batches:
        for network, into in zip(networks_, found, strict=True):
            for name, pooled_ND in _outputs(network, torch.from_numpy(images)).items():
                into.setdefault(name, []).append(pooled_ND)
    before, after = ({name: np.concatenate(parts) for name, parts in side.items()} for side in found)
    alike = {name: distortion.linear_cka(before[name], after[name]) for name in before}
    return alike, distortion.relative_change(before[FEATURES], after[FEATURES])


def _outputs(network: FromPixels, images: Tensor) -> dict[str, Float]:
    """What each stage with parameters gives, averaged over places, and the features."""
    inner: nn.Module = network.network.network  # type: ignore[assignment]
    is_last = getattr(inner, "output_fmt", "") == "NHWC"
    found: dict[str, Float] = {}

    def keep(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = _pooled(output, is_last=is_last)

        return layer.register_forward_hook(hook)

    handles = [
        keep(name, layer) for name, layer in splitting.stages(inner) if next(layer.parameters(), None) is not None
    ]
    try:
        with torch.no_grad():
            features_ND = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found | {FEATURES: features_ND.numpy()}


def _pooled(output: Tensor, *, is_last: bool) -> Float:
    """[N, D, H, W], [N, H, W, D] or [N, T, D] -> [N, D]."""
    if output.ndim == 4:
        output = output.mean((1, 2) if is_last else (2, 3))
    elif output.ndim == 3:
        output = output.mean(1)
    pooled_ND: Float = output.flatten(1).numpy()
    return pooled_ND
