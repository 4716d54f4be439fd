"""Cuts a network in two: a prefix whose output is computed once and kept, and the last stage, which is trained.

`suffix(prefix(x)) == features(x)` is proven on a probe batch for every network before anything relies on it; a network
without a proven cut gives None, and its caller trains without cached activations. Both parts share their tensors
with the network (nothing is copied): training the suffix changes the network, and `deepcopy(split.suffix)` keeps it.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

LAST_STAGE_SHARE = 0.2
CONTAINERS = ("blocks", "stages", "layers", "features", "trunk_output")
# Both paths run the same kernels in the same order; only a different memory format can change a last bit.
TOLERANCE = 1e-5

_log = logging.getLogger(__name__)


class Pass(nn.Module):
    """Identity that takes and ignores whatever a block is called with beside its input."""

    def forward(self, value: Tensor, *_: Any, **__: Any) -> Tensor:
        """The first argument."""
        return value


class Body(nn.Module):
    """timm's network up to the pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Unpooled features, or an activation when the tail is cut off."""
        value: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return value


class TransformerTail(nn.Module):
    """Last blocks of a timm vision transformer, its norm and its pooling."""

    def __init__(self, network: nn.Module, start: int) -> None:
        super().__init__()
        blocks = nn.Sequential(*list(network.blocks)[start:])  # type: ignore[arg-type]
        self.network = replaced(network, {"patch_embed": Pass(), "norm_pre": Pass(), "blocks": blocks})
        self.network._parameters = {}  # class token and positions belong to the prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, T, D] -> features [N, D]."""
        tokens = self.network.norm(self.network.blocks(tokens))  # type: ignore[operator]
        features: Tensor = self.network.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
        return features


class TorchvisionTransformerHead(nn.Module):
    """Everything of a torchvision vision transformer before its last blocks."""

    def __init__(self, network: TorchvisionTransformer, start: int) -> None:
        super().__init__()
        self.network = replaced(network, {"encoder": Pass(), "heads": Pass()})
        self.class_token, self.positions = network.class_token, network.encoder.pos_embedding
        self.blocks = nn.Sequential(*list(network.encoder.layers)[:start])

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> tokens [N, T, D]."""
        patches = self.network._process_input(images)  # type: ignore[operator]
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        value: Tensor = self.blocks(tokens + self.positions)
        return value


class TorchvisionTransformerTail(nn.Module):
    """Last blocks of a torchvision vision transformer, its norm, and what stands between it and the classifier."""

    def __init__(self, network: TorchvisionTransformer, start: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*list(network.encoder.layers)[start:])
        self.norm, self.heads = network.encoder.ln, network.heads

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [N, T, D] -> features [N, D]: the class token's."""
        features: Tensor = self.heads(self.norm(self.blocks(tokens))[:, 0])
        return features


@dataclass(frozen=True, slots=True)
class Split:
    """A proven cut.

    Args:
        prefix: images [N, 3, H, W] -> activations.
        suffix: activations -> features [N, D].
        name: path of the first layer of the suffix.
        activation_shape: without the batch.
        max_abs: largest difference seen between the two ways, on the probe.
    """

    prefix: nn.Module
    suffix: nn.Module
    name: str
    activation_shape: tuple[int, ...]
    max_abs: float


def split(features: nn.Module, height: int, width: int, share: float = LAST_STAGE_SHARE) -> Split | None:
    """Cuts before the smallest tail of stages that holds at least `share` of the parameters.

    Args:
        features: what `networks.feature_module` returned, in eval mode.
        height: of the input, pixels.
        width: of the input, pixels.
        share: of the network's parameters.
    """
    network: nn.Module = features.network  # type: ignore[assignment]
    chain = list(stages(network))
    start = last_stage([(name, _size(layer)) for name, layer in chain], share)
    if start == 0:
        _log.info("no split: the first stage already holds everything before the last %.0f %%", 100 * share)
        return None
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, 3, height, width, generator=generator)
    with torch.no_grad():
        wanted = features(probe)
        for prefix, suffix in _candidates(features, network, chain, start):
            found = _prove(prefix.eval(), suffix.eval(), chain[start][0], probe, wanted)
            if found is not None:
                return found
    _log.info("no split: the forward pass of %s is not a chain of its parts", type(network).__name__)
    return None


def stages(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network's parts in order of registration; known containers are opened one level."""
    if isinstance(network, TorchvisionTransformer):
        yield from _flat(network)
        return
    for name, child in network.named_children():
        if name in CONTAINERS and isinstance(child, nn.Sequential | nn.ModuleList):
            for inner, layer in child.named_children():
                yield f"{name}.{inner}", layer
        else:
            yield name, child


def _flat(network: TorchvisionTransformer) -> Iterator[tuple[str, nn.Module]]:
    yield "conv_proj", network.conv_proj
    for name, layer in network.encoder.layers.named_children():
        yield f"blocks.{name}", layer
    yield "ln", network.encoder.ln
    yield "heads", network.heads


def last_stage(sizes: list[tuple[str, int]], share: float) -> int:
    """Index of the first element of the smallest tail that holds at least `share` of all parameters.

    Where the network names its stages, the tail reaches at least the last of them: MobileNetV3 and VGG hold a fifth in
    the layers after the pooling alone, and training only those would not be a stage.
    """
    wanted, held = share * sum(size for _, size in sizes), 0
    named = [index for index, (name, size) in enumerate(sizes) if name.partition(".")[0] in CONTAINERS and size]
    for index in range(len(sizes) - 1, -1, -1):
        held += sizes[index][1]
        if held >= wanted:
            return min([index, *named[-1:]])
    return 0


def replaced(network: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """The network with other modules at the given paths; everything else is shared, nothing is changed in place."""
    clone = copy.copy(network)
    clone.__dict__ = dict(network.__dict__)
    clone._modules = dict(network._modules)
    here = {path: layer for path, layer in parts.items() if "." not in path}
    below: dict[str, dict[str, nn.Module]] = {}
    for path, layer in parts.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = layer
    for name, layer in here.items():
        clone._modules[name] = layer
    for name, inner in below.items():
        clone._modules[name] = replaced(network.get_submodule(name), inner)
    return clone


def _size(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _candidates(
    features: nn.Module, network: nn.Module, chain: list[tuple[str, nn.Module]], start: int
) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Ways to cut, cheapest reading first; which of them is true of this network is for the proof to say."""
    head = {name: Pass() for name, _ in chain[:start]}
    tail = {name: Pass() for name, _ in chain[start:]}
    if isinstance(network, VisionTransformer):
        first = int(chain[start][0].partition(".")[2] or 0)
        yield Body(replaced(network, tail)), TransformerTail(network, first)
        return
    if isinstance(network, TorchvisionTransformer):
        first = int(chain[start][0].rpartition("_")[2] or 0)
        yield TorchvisionTransformerHead(network, first), TorchvisionTransformerTail(network, first)
        return
    suffix = type(features)(replaced(network, head))
    yield nn.Sequential(*[layer for _, layer in chain[:start]]), suffix
    if callable(getattr(network, "forward_features", None)):
        yield Body(replaced(network, tail)), suffix


def _prove(prefix: nn.Module, suffix: nn.Module, name: str, probe: Tensor, wanted: Tensor) -> Split | None:
    """Runs both parts; a network that is no chain fails here in whatever way its forward pass does."""
    try:
        activations = prefix(probe)
        got = suffix(activations)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        _log.info("no split at %s: %s", name, error)
        return None
    if not isinstance(activations, Tensor) or not isinstance(got, Tensor) or got.shape != wanted.shape:
        return None
    max_abs = float((got - wanted).abs().max())
    if not max_abs <= TOLERANCE * max(1.0, float(wanted.abs().max())):
        _log.info("no split at %s: the parts differ from the whole by %g", name, max_abs)
        return None
    return Split(prefix, suffix, name, tuple(activations.shape[1:]), max_abs)
