"""Features of rows outside of training: by the unchanged backbone, by a torch module, by a graph.

Shape legend: N items, D features.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from app.artifact.preprocess import Preprocess
from worker.backbones import features, networks
from worker.backbones.export import FromPixels
from worker.backbones.extraction import Extraction
from worker.backbones.feature_cache import Space
from worker.backbones.prepared import Prepared
from worker.contract.task import Float, Rows, Task


def frozen(
    task: Task, backbone: Prepared, rows: Rows, opened: Callable[[], features.Extractor] | None = None
) -> tuple[Float, Extraction]:
    """Features of rows under the unchanged backbone, at its own resolution or another one.

    Args:
        task: the data.
        backbone: with the input size that is wanted.
        rows: of the data.
        opened: its extractor, where one is open already.
    """
    opened = opened or (lambda: extractor(task, backbone))
    space, shape = _space(task, backbone), backbone.preprocess
    return features.features(task.context, task.index, rows, space, shape, opened, stage=("features", 0.05, 0.2))


def num_missing(task: Task, backbone: Prepared, rows: Rows) -> int:
    """How many images would have to be extracted for `frozen`."""
    return features.num_missing_in(task.context, task.index, rows, _space(task, backbone))


def _space(task: Task, backbone: Prepared) -> Space:
    if backbone.preprocess == task.backbone.preprocess:
        return features.pooled_space(task.context, backbone)
    return Space(backbone.digest, backbone.preprocess.digest, "pooled", "center", "fp32")


def extractor(task: Task, backbone: Prepared) -> features.Extractor:
    """Images -> features of the unchanged backbone, by its graph at its own resolution, by torch at another one."""
    shape = backbone.preprocess
    if shape == task.backbone.preprocess:
        return features.open_extractor(task.context, backbone)
    trunk = FromPixels(restore_at(task.backbone, shape), shape).to(task.context.device)
    return lambda images: run(trunk, images)


def restore_at(backbone: Prepared, shape: Preprocess) -> nn.Module:
    """The backbone's network for another input size; transformers of timm get their positions resampled.

    Raises:
        ValueError: the network takes no other size than its own.
    """
    network = networks.restore(backbone)
    if shape == backbone.preprocess:
        return network
    resize = getattr(network.network, "set_input_size", None)
    try:
        if resize is not None:
            resize(img_size=(shape.height, shape.width))
        with torch.no_grad():
            network(torch.zeros(1, 3, shape.height, shape.width))
    except (RuntimeError, AssertionError, ValueError) as error:
        own = backbone.preprocess.height
        raise ValueError(f"{backbone.name} takes {own} px and not {shape.height}: {error}") from error
    return network


def by_row(task: Task, rows: Rows, shape: Preprocess, run: features.Extractor) -> Float:
    """An extractor's features of some rows, in their order; nothing is cached.

    Shape:
        result: [N, D]
    """
    order = np.argsort(rows)
    out: Float | None = None
    for batch_rows, images in features.decoded(task.context, task.index, rows, shape):
        found = run(images)
        out = np.empty((len(rows), *found.shape[1:]), np.float32) if out is None else out
        out[order[np.searchsorted(rows, batch_rows, sorter=order)]] = found
    assert out is not None
    return out


def run(module: nn.Module, given: Any) -> Float:
    """A module's output for one batch of arrays, on whatever device it lies."""
    device = next(module.parameters()).device
    with torch.no_grad():
        result: Float = module.eval()(torch.from_numpy(np.ascontiguousarray(given)).to(device)).float().cpu().numpy()
    return result
