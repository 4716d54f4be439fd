"""Batch-norm statistics of a backbone estimated again on a domain's own images (AdaBN, arXiv 1603.04779).

Each domain gets its own: the source's features come from a network with the source's statistics, and the head that is
trained on them is served by one with the target's (the paper's algorithm 1 with a backbone that neither domain
trained). What was learned stays as it is. Statistics are those of whole batches, averaged over them.
"""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from worker.attempt.context import RunContext
from worker.backbones import export, features, networks
from worker.backbones.export import FromPixels
from worker.backbones.extraction import Extraction
from worker.backbones.feature_cache import Space
from worker.backbones.features import Extractor
from worker.backbones.prepared import Prepared
from worker.contract.task import Float, Rows
from worker.data.samples import Index

BATCH = 64
MAX_IMAGES = 512
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def num_norms(backbone: Prepared) -> int:
    """How many layers of batch norm a backbone has; a transformer has none, and nothing to estimate."""
    return sum(isinstance(layer, NORMS) for layer in networks.restore(backbone).modules())


def network(context: RunContext, index: Index, rows: Rows, backbone: Prepared, seed: int) -> FromPixels:
    """The backbone with statistics of at most `MAX_IMAGES` of the rows.

    Shape:
        rows: [N]
    """
    found = FromPixels(networks.restore(backbone), backbone.preprocess, torch.channels_last).requires_grad_(False)
    found = found.eval().to(context.device).to(memory_format=torch.channels_last)
    for layer in found.modules():
        if isinstance(layer, NORMS):
            layer.reset_running_stats()
            # None: the plain mean over all batches, whatever their number.
            layer.momentum = None
            layer.train()
    order = np.random.default_rng(seed)
    some = order.permutation(rows)[:MAX_IMAGES]
    # In memory, and shuffled: images are stored class by class, and a batch of one class varies too little.
    batches = features.decoded(context, index, some, backbone.preprocess)
    images = order.permutation(np.concatenate([images for _, images in batches]))
    size = min(BATCH, len(images))
    with torch.no_grad():
        # The last, smaller batch would count as much as a full one: it is left out.
        for start in range(0, len(images) - size + 1, size):
            found(torch.from_numpy(images[start : start + size]).to(context.device))
    return found.eval()


def extract(
    context: RunContext,
    index: Index,
    rows: Rows,
    backbone: Prepared,
    found: FromPixels,
    statistics: str,
    stage: tuple[str, float, float],
) -> tuple[Float, Extraction]:
    """Features under a network with its own statistics, kept in the cache under their name.

    Shape:
        rows: [N]
        result: [N, D]
    """
    space = Space(backbone.digest, backbone.preprocess.digest, f"pooled, {statistics}", "center", "fp32")
    return features.features(
        context, index, rows, space, backbone.preprocess, lambda: _extractor(found, context.device), stage=stage
    )


def name(index: Index, rows: Rows, seed: int) -> str:
    """What statistics are called in the cache: the images they come from."""
    digest = hashlib.sha256(b"".join(sorted(index.sha256[rows].tolist())) + str(seed).encode()).hexdigest()
    return f"batch norm of {digest[:32]}"


def write(found: FromPixels, backbone: Prepared, path: Path) -> None:
    """The graph that serves it, proven.

    Raises:
        JobFailure: internal, graph and torch differ.
    """
    # A copy: the exporter works on the CPU, and features may still be wanted where the network is.
    network = copy.deepcopy(found.network).cpu().to(memory_format=torch.contiguous_format)
    export.export_backbone(network, backbone.preprocess, path)


def save(found: FromPixels, path: Path) -> None:
    """The weights with the domain's statistics, as safetensors."""
    networks.save(found.network, path)


def _extractor(found: FromPixels, device: str) -> Extractor:
    def run(images: np.ndarray) -> Float:
        with torch.no_grad():
            features_ND: Float = found(torch.from_numpy(images).to(device)).float().cpu().numpy()
        return features_ND

    return run
