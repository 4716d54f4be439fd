"""Few parameters for a frozen network: its norms, SSF and LoRA; at the end they are folded into its weights.

SSF (Lian et al., arXiv 2210.08823, eq. 3 and 5) puts y = alpha * x + beta, one pair per channel, directly after each
convolution, norm and linear layer. LoRA (Hu et al., arXiv 2106.09685, section 4.1) adds a product B A of low rank to a
linear layer's weight. Both live in weight space here: the layer computes with alpha * W and alpha * b + beta, or with
W + B A, and the factors get their gradients through that. So folding changes no number, zero padding included (a shift
of the output knows no border), and the served graph has the operators of the frozen one.

Departures:
- A convolution whose output goes straight into batch norm with frozen statistics gets no pair of its own: both are
  affine per channel, so the norm's pair spans the same maps. Without the gradients of those kernels EfficientNet-Lite0
  at 96 px trains at 156 instead of 92 images/s on 2 cores (norms alone: 165).
- A linear layer without a bias gets alpha only, since a bias would be one more operator.
- LoRA adapts every linear layer of a network that has attention, not the queries and values alone; a fused projection
  has one pair. The scale alpha / r is 1: it does what the learning rate does.

Shape legend: C output channels, I inputs of a channel, R rank.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

# timm's layers that standardise their kernels in every forward pass: a factor on them has no effect.
STANDARDISED = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")

# In the names of timm's classes: GPSA and MHSA are ConViT's, the parallel blocks hold attention and MLP in one.
ATTENTION = ("attention", "attn", "gpsa", "mhsa", "parallelscaling")


class Scale(nn.Module):
    """W -> alpha * W, one alpha per output channel.

    Shape:
        alpha_C: [C]
    """

    def __init__(self, alpha_C: nn.Parameter) -> None:
        super().__init__()
        self.alpha_C = alpha_C

    def forward(self, weight: Tensor) -> Tensor:
        """Whatever follows the channel in `weight` is scaled alike."""
        return weight * self.alpha_C.reshape(-1, *[1] * (weight.ndim - 1))


class ScaleShift(nn.Module):
    """b -> alpha * b + beta; alpha is the weight's own.

    Shape:
        alpha_C, beta_C: [C]
    """

    def __init__(self, alpha_C: nn.Parameter) -> None:
        super().__init__()
        self.alpha_C = alpha_C
        self.beta_C = nn.Parameter(torch.zeros_like(alpha_C))

    def forward(self, bias_C: Tensor) -> Tensor:
        """The layer's bias."""
        return bias_C * self.alpha_C + self.beta_C


class LowRank(nn.Module):
    """W -> W + B A; A is drawn, B begins at zero, so training starts from the network as it is.

    Shape:
        a_RI: [R, I]
        b_CR: [C, R]
    """

    def __init__(self, num_outputs: int, num_inputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rank = min(rank, num_outputs, num_inputs)
        bound = 1 / math.sqrt(num_inputs)
        self.a_RI = nn.Parameter(torch.empty(rank, num_inputs).uniform_(-bound, bound, generator=generator))
        self.b_CR = nn.Parameter(torch.zeros(num_outputs, rank))

    def forward(self, weight_CI: Tensor) -> Tensor:
        """The layer's weight."""
        return weight_CI + self.b_CR @ self.a_RI


@dataclass(frozen=True, slots=True)
class _Operation:
    """One place where a network computes, with the names of its tensors."""

    path: str
    module: nn.Module
    weight: str = "weight"
    bias: str = "bias"


def train_norms(network: nn.Module) -> None:
    """Leaves scale and shift of every norm trainable, nothing else (BitFit's idea, arXiv 2106.10199, for norms).

    Raises:
        ValueError: there are none.
    """
    network.requires_grad_(False)
    found = [value for layer in network.modules() if is_norm(layer) for value in layer.parameters(recurse=False)]
    if not found:
        raise ValueError("no norm layer with a scale and a shift to learn")
    for value in found:
        value.requires_grad_(True)


def add_ssf(network: nn.Module, example: Tensor) -> None:
    """Puts alpha and beta after every operation, at 1 and 0; everything else is frozen.

    Args:
        network: in eval mode.
        example: an input; shows which convolutions feed a batch norm.

    Shape:
        example: [1, 3, H, W]
    """
    network.requires_grad_(False)
    redundant = _into_batch_norm(network, example)
    for operation in list(_operations(network)):
        if operation.path in redundant:
            continue
        module = operation.module
        weight: Tensor = getattr(module, operation.weight)
        alpha_C = nn.Parameter(weight.new_ones(len(weight)))
        if getattr(module, operation.bias) is None and isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)
        parametrize.register_parametrization(module, operation.weight, Scale(alpha_C))
        if getattr(module, operation.bias) is not None:
            parametrize.register_parametrization(module, operation.bias, ScaleShift(alpha_C))


def add_lora(network: nn.Module, rank: int, seed: int) -> None:
    """Adds a product of low rank to every linear layer; everything else is frozen.

    Raises:
        ValueError: the network has no attention.
    """
    if not has_attention(network):
        raise ValueError("no attention with linear layers, which LoRA adapts")
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for operation in list(_operations(network)):
        weight: Tensor = getattr(operation.module, operation.weight)
        if isinstance(operation.module, nn.Linear | nn.MultiheadAttention):
            adapter = LowRank(weight.shape[0], weight.shape[1], rank, generator)
            parametrize.register_parametrization(operation.module, operation.weight, adapter)


def has_attention(network: nn.Module) -> bool:
    """Whether attention made of linear layers is in it: vision transformers and hybrids, not squeeze-and-excitation."""
    return any(
        isinstance(layer, nn.MultiheadAttention)
        or (
            any(word in type(layer).__name__.lower() for word in ATTENTION)
            and any(isinstance(inner, nn.Linear) for inner in layer.modules())
        )
        for layer in network.modules()
    )


def is_norm(layer: nn.Module) -> bool:
    """Whether a layer normalises and has a learned scale per channel."""
    known = isinstance(layer, _BatchNorm | nn.LayerNorm | nn.GroupNorm) or "RmsNorm" in type(layer).__name__
    weight = getattr(layer, "weight", None)
    return known and weight is not None and weight.ndim == 1


def fold(network: nn.Module) -> set[str]:
    """Makes what the adapted layers compute with their plain weights; the adapters are gone.

    Returns:
        names of the tensors that an adapter went into.
    """
    folded = set()
    for path, module in list(network.named_modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                getattr(module, name).requires_grad_(False)
                folded.add(f"{path}.{name}" if path else name)
    return folded


def factors(network: nn.Module) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Path, alpha and beta of every SSF pair; None where there is no beta.

    Shape:
        result: [C], [C]
    """
    shifts = {id(layer.alpha_C): layer.beta_C.detach() for layer in network.modules() if isinstance(layer, ScaleShift)}
    for path, layer in network.named_modules():
        if isinstance(layer, Scale):
            yield path.partition(".parametrizations.")[0], layer.alpha_C.detach(), shifts.get(id(layer.alpha_C))


def _operations(network: nn.Module) -> Iterator[_Operation]:
    for path, module in network.named_modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield _Operation(path, module, "in_proj_weight", "in_proj_bias")
        is_plain = isinstance(module, nn.Conv2d) and type(module).__name__ not in STANDARDISED
        if is_plain or is_norm(module) or isinstance(module, nn.Linear):
            yield _Operation(path, module)


def _into_batch_norm(network: nn.Module, example: Tensor) -> set[str]:
    """Paths of the layers whose very output is what a batch norm reads."""
    produced: list[tuple[Tensor, str]] = []
    found: set[str] = set()

    def remember(path: str) -> Callable[..., None]:
        return lambda _module, _given, result: produced.append((result, path))

    def look(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.update(path for tensor, path in produced if tensor is given[0])

    handles = []
    for path, module in network.named_modules():
        if isinstance(module, _BatchNorm) and is_norm(module):
            handles.append(module.register_forward_pre_hook(look))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(remember(path)))
    with torch.no_grad():
        network(example)
    for handle in handles:
        handle.remove()
    return found
