"""What fine-tuning did to each tensor of a backbone, and how far SSF's factors went from where they began.

Shape legend: C output channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.artifact import tensors
from worker.backbones import adapters
from worker.backbones import split as splitting
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Moved

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# A factor counts as moved beyond this distance from where it began.
MOVED = 0.01


@dataclass(frozen=True, slots=True)
class Fold:
    """What `finish` found.

    Args:
        tensors: one row for each of the network's.
        factors: SSF's alpha and beta by stage; None for other scopes.
    """

    tensors: tuple[Moved, ...]
    factors: dict[str, dict[str, Any]] | None


def finish(features: nn.Module, backbone: Prepared) -> Fold:
    """Folds a trained network's adapters into its weights; what became of each tensor.

    Args:
        features: as `networks.restore` gave it, then adapted and trained.
        backbone: where its tensors came from.
    """
    network: nn.Module = features.network  # type: ignore[assignment]
    factors = _factors(network)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    folded = adapters.fold(network)
    source = tensors.shapes(backbone.weights)
    rows = []
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if name not in source:
            what = "new"
        elif name in folded:
            what = "folded"
        elif name in trained:
            what = "trained"
        else:
            what = "frozen" if source[name] == shape else "mapped"
        rows.append(Moved(name, shape, what))
    return Fold(tuple(rows), factors)


def _factors(network: nn.Module) -> dict[str, dict[str, Any]] | None:
    pairs = list(adapters.factors(network))
    if not pairs:
        return None
    found = {}
    for stage, _ in splitting.stages(network):
        here = [pair for pair in pairs if pair[0] == stage or pair[0].startswith(f"{stage}.")]
        if here:
            found[stage] = {"alpha": _spread(torch.cat([alpha_C for _, alpha_C, _ in here]), 1.0)}
            # Layers without a bias have no beta.
            shifts = [beta_C for _, _, beta_C in here if beta_C is not None]
            if shifts:
                found[stage]["beta"] = _spread(torch.cat(shifts), 0.0)
    return found


def _spread(values_C: Tensor, start: float) -> dict[str, Any]:
    """Quantiles, and the share that left its start."""
    values_C = values_C.double().cpu()
    quantiles = torch.quantile(values_C, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    return {
        "num": len(values_C),
        "quantiles": {f"{level:g}": value for level, value in zip(QUANTILES, quantiles, strict=True)},
        "share_moved": float(((values_C - start).abs() > MOVED).double().mean()),
    }
