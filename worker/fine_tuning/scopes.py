"""What each scope of fine-tuning trains, what it reads, and how the result becomes a graph.

Shape legend: N items, D features.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.artifact.preprocess import Preprocess
from app.errors import JobFailure
from app.recipes import FineTune
from worker.backbones import adapters, export, features, networks
from worker.backbones import split as splitting
from worker.backbones.export import FromPixels
from worker.backbones.extraction import NOTHING, Extraction
from worker.backbones.prepared import Prepared
from worker.contract.task import Float, Rows, Task
from worker.fine_tuning import forward
from worker.training import inputs, optim
from worker.training.augment import CachedView
from worker.training.batches import Data
from worker.training.inputs import ArraySource, ImageSource
from worker.training.optim import Optimisation
from worker.training.views import PILOTS, Views

# On a CPU whole batches of images would take gigabytes for their gradients.
CPU_MICRO_BATCH = 16


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
        extraction: what was computed for the inputs until now.
        views: the training inputs, where they are gathered on the way; None where all are there.
        network: the backbone whose tensors `trunk` trains; None where it stays as it is.
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
    views: Views | None = None
    micro_batch: int = 0
    network: nn.Module | None = None
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
    groups: tuple[str, ...] = ()
    crops: bool = True


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
        reference=lambda rows: forward.frozen(task, task.backbone, rows)[0],
        extraction=NOTHING,
    )


def last_stage(task: Task, part: Part, recipe: FineTune, num_views: int) -> Material:
    """The last stage on cached activations of a frozen prefix: the path of a CPU.

    Args:
        task: the data.
        part: its two sides.
        recipe: of the run.
        num_views: the plain one included; fewer where the time is short.
    """
    context, backbone, prefix = task.context, task.backbone, task.backbone.prefix
    network = networks.restore(backbone)
    cut = splitting.split(network, backbone.preprocess.height, backbone.preprocess.width)
    if cut is None or cut.name != backbone.split or prefix is None:
        raise ValueError(f"expected {backbone.name} to split at {backbone.split}; prepare it again with this version")
    network.requires_grad_(False)
    cut.suffix.requires_grad_(True)
    shape = inputs.without_margin(backbone.preprocess)
    num_views = num_views if part.crops else 1
    augmented = [CachedView(number, shape, part.flip, part.groups) for number in range(1, num_views)]
    views = Views(context, task.index, part.train, backbone, augmented)
    # The hold-out first: whoever has to leave in the middle can still say how good what there is would be.
    held, extraction = inputs.activations(context, task.index, part.held, backbone, None, ("activations", 0.2, PILOTS))

    def write(path: Path) -> None:
        suffix = context.scratch / "suffix.onnx"
        export.export_suffix(_for_export(cut.suffix), cut.activation_shape, suffix)
        export.join(prefix, suffix, path)

    def reference(rows: Rows) -> Float:
        run = features.graph_extractor(prefix, context.settings.num_compute_threads)
        return forward.by_row(task, rows, backbone.preprocess, lambda images: forward.run(cut.suffix, run(images)))

    optimisation = optim.for_network(network)
    return Material(
        trunk=cut.suffix,
        optimisation=optimisation,
        scales=_scales(network, recipe, optimisation),
        train=Data(views, task.labels_N[part.train]),
        held=Data(ArraySource(held[None]), task.labels_N[part.held]),
        backbone=backbone,
        write=write,
        reference=reference,
        extraction=extraction,
        views=views,
        network=network,
        details={"split": cut.name, "cached_activations": True},
    )


def on_images(task: Task, part: Part, recipe: FineTune, shape: Preprocess) -> Material:
    """A scope on augmented images: what is frozen before the first trained layer is computed again in every step.

    Args:
        task: the data.
        part: its two sides.
        recipe: of the run.
        shape: of the input.

    Raises:
        JobFailure: `unsupported_scope`, the network has nothing that the scope trains.
    """
    context = task.context
    backbone = replace(task.backbone, preprocess=shape)
    network = forward.restore_at(task.backbone, shape)
    trunk = FromPixels(network, shape)
    optimisation = _prepare(backbone, network, recipe, shape, task.seed)
    stage = 0.2, 0.45
    pixels = inputs.decode_all(context, task.index, part.train, shape, ("decode", *_share(*stage, 0, 2)))
    held = inputs.decode_all(context, task.index, part.held, shape, ("decode", *_share(*stage, 1, 2)))
    source = ImageSource(pixels, shape, part.flip, part.threads, part.groups, part.crops)

    def write(path: Path) -> None:
        export.export_backbone(_for_export(network), shape, path)

    return Material(
        trunk=trunk,
        optimisation=optimisation,
        scales=_scales(network, recipe, optimisation),
        train=Data(source, task.labels_N[part.train]),
        held=Data(ImageSource(held, shape, False, part.threads), task.labels_N[part.held]),
        backbone=backbone,
        write=write,
        reference=lambda rows: forward.by_row(task, rows, shape, lambda images: forward.run(trunk, images)),
        extraction=NOTHING,
        micro_batch=CPU_MICRO_BATCH if context.device == "cpu" else 0,
        network=network,
        details={"resolution": shape.height, "cached_activations": False},
    )


def check(backbone: Prepared, recipe: FineTune) -> None:
    """Refuses a scope that the backbone has nothing for, before any feature is computed.

    Raises:
        JobFailure: `unsupported_scope`.
    """
    if recipe.scope in ("norm", "lora"):
        _prepare(backbone, networks.restore(backbone), recipe, backbone.preprocess, 0)


def _prepare(backbone: Prepared, network: nn.Module, recipe: FineTune, shape: Preprocess, seed: int) -> Optimisation:
    """Leaves trainable what the scope names, with its adapters; how that is trained."""
    try:
        match recipe.scope:
            case "norm":
                adapters.train_norms(network)
                return optim.FACTORS
            case "ssf":
                adapters.add_ssf(network, torch.zeros(1, 3, shape.height, shape.width))
                return optim.FACTORS
            case "lora":
                adapters.add_lora(network, recipe.rank, seed)
                return optim.LOW_RANK
            case "last_stage":
                freeze_prefix(network)
    except ValueError as error:
        raise JobFailure(
            "unsupported_scope",
            f"expected a backbone with what scope {recipe.scope} trains; found {backbone.name}, which has {error}; "
            "use another scope or another backbone",
        ) from error
    return optim.for_network(network)


def _scales(network: nn.Module, recipe: FineTune, optimisation: Optimisation) -> dict[int, float]:
    decay = optimisation.layer_decay if recipe.layer_decay is None else recipe.layer_decay
    return optim.stage_scales(network.network, decay)  # type: ignore[arg-type]


def freeze_prefix(network: nn.Module) -> None:
    """Leaves only the last stage trainable; without gradients before it, autograd keeps nothing of the prefix."""
    inner: nn.Module = network.network  # type: ignore[assignment]
    parts = list(splitting.stages(inner))
    sizes = [(name, sum(parameter.numel() for parameter in part.parameters())) for name, part in parts]
    start = splitting.last_stage(sizes, splitting.LAST_STAGE_SHARE)
    network.requires_grad_(False)
    for _, part in parts[start:]:
        part.requires_grad_(True)


def _for_export(module: nn.Module) -> nn.Module:
    return module.eval().cpu().to(memory_format=torch.contiguous_format)


def _share(begin: float, end: float, part: int, parts: int) -> tuple[float, float]:
    return begin + (end - begin) * part / parts, begin + (end - begin) * (part + 1) / parts
