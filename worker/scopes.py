"""What each scope of fine-tuning trains, what it reads, and how the result becomes a graph.

Shape legend: N items, D features, C classes, H x W of the input.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.artifact.preprocess import Preprocess
from worker import backbones, export, features, inputs, optim
from worker import split as splitting
from worker.augment import CachedView
from worker.batches import Data
from worker.export import FromPixels
from worker.features import Extraction, Space
from worker.inputs import ArraySource, ImageSource
from worker.methods.contract import Float, Rows, Task
from worker.methods.heads import LinearHead
from worker.optim import Optimisation
from worker.prepared import Prepared

# On a CPU whole batches of images would take gigabytes for their gradients.
CPU_MICRO_BATCH = 16
# Another view is extracted while it takes at most this part of the time that is left.
VIEW_SHARE = 0.25


class Network(nn.Module):
    """Trunk -> features -> standardised -> linear head. The head computes in float32 under any autocast.

    Shape:
        result: [N, C]
    """

    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, trunk: nn.Module, head: LinearHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("mean_D", torch.from_numpy(head.mean_D.copy()))
        self.register_buffer("scale_D", torch.from_numpy(head.scale_D.copy()))
        num_classes, num_features = head.weight_CD.shape
        self.head = nn.Linear(num_features, num_classes)
        with torch.no_grad():
            # The probe's temperature goes into its weights: training starts from calibrated scores, whichever
            # solver gave them (a ridge's are not logits by themselves).
            self.head.weight.copy_(torch.from_numpy(head.weight_CD / np.float32(head.temperature)))
            self.head.bias.copy_(torch.from_numpy(head.bias_C / np.float32(head.temperature)))

    def forward(self, given: Tensor) -> Tensor:
        """Logits."""
        feats_ND = self.trunk(given)
        with torch.autocast(given.device.type, enabled=False):
            logits_NC: Tensor = self.head((feats_ND.float() - self.mean_D) / self.scale_D)
        return logits_NC


@dataclass(frozen=True)
class Material:
    """What one run trains and reads.

    Args:
        trunk: inputs -> features.
        optimisation: of the kind of network.
        scales: factor on the learning rate by a parameter's id.
        train: items to learn from.
        held: items to choose by.
        backbone: with the preprocessing that the result needs.
        write: writes the graph images -> features; None where the backbone's own graph is served.
        reference: features of rows by torch, after training.
        micro_batch: inputs computed at once, as long as they fit; 0 takes whole batches.
        extraction: what was computed for the inputs.
        details: for the report.
    """

    trunk: nn.Module
    optimisation: Optimisation
    scales: dict[int, float]
    train: Data
    held: Data
    backbone: Prepared
    write: Callable[[Path], None] | None
    reference: Callable[[Rows], Float]
    extraction: Extraction
    micro_batch: int = 0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The two sides of the hold-out, and what is known of them.

    Shape:
        train_ND, held_ND: [N, D], frozen features
    """

    train: Rows
    held: Rows
    train_ND: Float
    held_ND: Float
    flip: bool
    threads: ThreadPoolExecutor


def head_only(task: Task, part: Part) -> Material:
    """The head alone, on the frozen features that are known already."""
    return Material(
        trunk=nn.Identity(),
        optimisation=optim.CONVOLUTIONAL,
        scales={},
        train=Data(ArraySource(part.train_ND[None]), task.labels_N[part.train]),
        held=Data(ArraySource(part.held_ND[None]), task.labels_N[part.held]),
        backbone=task.backbone,
        write=None,
        reference=lambda rows: frozen(task, task.backbone, rows)[0],
        extraction=Extraction(0, 0, 0.0),
    )


def last_stage(task: Task, part: Part, num_views: int, deadline: float | None) -> Material:
    """The last stage on cached activations of a frozen prefix: the path of a CPU.

    Args:
        task: the data.
        part: its two sides.
        num_views: the plain one included; fewer where the time is short.
        deadline: when training must have ended.
    """
    context, backbone, prefix = task.context, task.backbone, task.backbone.prefix
    network = backbones.restore(backbone)
    cut = splitting.split(network, backbone.preprocess.height, backbone.preprocess.width)
    if cut is None or cut.name != backbone.split or prefix is None:
        raise ValueError(f"expected {backbone.name} to split at {backbone.split}; prepare it again with this version")
    network.requires_grad_(False)
    cut.suffix.requires_grad_(True)
    shape = inputs.without_margin(backbone.preprocess)
    augmented = [CachedView(number, shape, part.flip) for number in range(1, num_views)]
    views_VN = np.empty((num_views, len(part.train), *cut.activation_shape), np.float16)
    extractions: list[Extraction] = []
    for number, view in enumerate((None, *augmented)):
        if deadline is not None and extractions:
            left = deadline - time.monotonic()
            if extractions[-1].seconds > VIEW_SHARE * left:
                context.reporter.log(f"{number} of {num_views} views fit the time: {left:.0f} s left", "warning")
                break
        stage = (f"activations {number + 1} of {num_views}", *_share(0.2, 0.45, number, num_views))
        views_VN[number], extraction = inputs.activations(context, task.index, part.train, backbone, view, stage)
        extractions.append(extraction)
    views_VN = views_VN[: len(extractions)]
    held, extraction = inputs.activations(context, task.index, part.held, backbone, None, ("activations", 0.44, 0.45))
    extractions.append(extraction)

    def write(path: Path) -> None:
        suffix = context.scratch / "suffix.onnx"
        export.export_suffix(_for_export(cut.suffix), cut.activation_shape, suffix)
        export.join(prefix, suffix, path)

    def reference(rows: Rows) -> Float:
        run = features.graph_extractor(prefix, context.settings.num_compute_threads)
        return by_row(task, rows, backbone.preprocess, lambda images: _run(cut.suffix, run(images)))

    return Material(
        trunk=cut.suffix,
        optimisation=optim.for_network(network),
        scales=optim.stage_scales(network.network, optim.for_network(network).layer_decay),  # type: ignore[arg-type]
        train=Data(ArraySource(views_VN), task.labels_N[part.train]),
        held=Data(ArraySource(held[None]), task.labels_N[part.held]),
        backbone=backbone,
        write=write,
        reference=reference,
        extraction=total(extractions),
        details={"views": len(views_VN), "split": cut.name, "cached_activations": True},
    )


def on_images(task: Task, part: Part, shape: Preprocess, *, whole: bool) -> Material:
    """The whole network on augmented images, or its last stage behind a frozen prefix that is computed again and again.

    Args:
        task: the data.
        part: its two sides.
        shape: of the input.
        whole: whether everything is trained.
    """
    context = task.context
    backbone = replace(task.backbone, preprocess=shape)
    network = restore_at(task.backbone, shape)
    trunk = FromPixels(network, shape)
    if not whole:
        freeze_prefix(network)
    stage = 0.2, 0.45
    train = inputs.decode_all(context, task.index, part.train, shape, ("decode", *_share(*stage, 0, 2)))
    held = inputs.decode_all(context, task.index, part.held, shape, ("decode", *_share(*stage, 1, 2)))
    optimisation = optim.for_network(network)

    def write(path: Path) -> None:
        export.export_backbone(_for_export(network), shape, path)

    return Material(
        trunk=trunk,
        optimisation=optimisation,
        scales=optim.stage_scales(network.network, optimisation.layer_decay),  # type: ignore[arg-type]
        train=Data(ImageSource(train, shape, part.flip, part.threads), task.labels_N[part.train]),
        held=Data(ImageSource(held, shape, False, part.threads), task.labels_N[part.held]),
        backbone=backbone,
        write=write,
        reference=lambda rows: by_row(task, rows, shape, lambda images: _run(trunk, images)),
        extraction=Extraction(0, 0, 0.0),
        micro_batch=CPU_MICRO_BATCH if context.device == "cpu" else 0,
        details={"resolution": shape.height, "cached_activations": False},
    )


def frozen(task: Task, backbone: Prepared, rows: Rows) -> tuple[Float, Extraction]:
    """Features of rows under the unchanged backbone, at its own resolution or another one."""
    context, stage = task.context, ("features", 0.05, 0.2)
    shape = backbone.preprocess
    if shape == task.backbone.preprocess:
        return features.pooled(context, task.index, rows, backbone, stage)
    space = Space(backbone.digest, shape.digest, "pooled", "center", "fp32")

    def extractor() -> features.Extractor:
        trunk = FromPixels(restore_at(task.backbone, shape), shape).to(context.device)
        return lambda images: _run(trunk, images)

    return features.features(context, task.index, rows, space, shape, extractor, stage=stage)


def restore_at(backbone: Prepared, shape: Preprocess) -> nn.Module:
    """The backbone's network for another input size; transformers of timm get their positions resampled.

    Raises:
        ValueError: the network takes no other size than its own.
    """
    network = backbones.restore(backbone)
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


def freeze_prefix(network: nn.Module) -> None:
    """Leaves only the last stage trainable; without gradients before it, autograd keeps nothing of the prefix."""
    inner: nn.Module = network.network  # type: ignore[assignment]
    parts = list(splitting.stages(inner))
    sizes = [(name, sum(parameter.numel() for parameter in part.parameters())) for name, part in parts]
    start = splitting.last_stage(sizes, splitting.LAST_STAGE_SHARE)
    network.requires_grad_(False)
    for _, part in parts[start:]:
        part.requires_grad_(True)


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


def total(extractions: list[Extraction]) -> Extraction:
    """Several extractions as one."""
    return Extraction(
        sum(one.num_cached for one in extractions),
        sum(one.num_extracted for one in extractions),
        sum(one.seconds for one in extractions),
    )


def _run(module: nn.Module, given: Any) -> Float:
    device = next(module.parameters()).device
    with torch.no_grad():
        result: Float = module.eval()(torch.from_numpy(np.ascontiguousarray(given)).to(device)).float().cpu().numpy()
    return result


def _for_export(module: nn.Module) -> nn.Module:
    return module.eval().cpu().to(memory_format=torch.contiguous_format)


def _share(begin: float, end: float, part: int, parts: int) -> tuple[float, float]:
    return begin + (end - begin) * part / parts, begin + (end - begin) * (part + 1) / parts
