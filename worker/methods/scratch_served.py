"""A network from scratch as what a job publishes: its graph, its head, and no pretrained weights in either.

Shape legend: N items, D features, C classes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.artifact.spec import FROM_SCRATCH
from worker.backbones import export, features, weights
from worker.backbones.prepared import Prepared
from worker.contract.candidate import Candidate, Moved, Selection
from worker.contract.heads import LinearHead
from worker.contract.task import Float, Rows, Task
from worker.fine_tuning import forward
from worker.methods.scratch_training import Entry
from worker.scores import calibration

NO_LICENCE = "none: no pretrained weights"


def candidate(task: Task, entry: Entry, held: Rows) -> Candidate:
    """Writes the graph and describes the result.

    Args:
        task: the data.
        entry: the network.
        held: rows that it has not learned from.

    Raises:
        JobFailure: `internal`, the graph differs from the network.
    """
    classifier = entry.network.eval().to(memory_format=torch.contiguous_format)
    trunk: nn.Module = classifier.trunk.network  # type: ignore[assignment]
    graph = task.context.scratch / "from_scratch.onnx"
    export.export_backbone(trunk, entry.shape, graph)
    plain, given = _head(classifier.head), classifier.head.in_features

    def reference(rows: Rows) -> Float:
        return forward.by_row(task, rows, entry.shape, lambda images: forward.run(classifier.trunk, images))

    def served_features(rows: Rows) -> Float:
        extractor = features.graph_extractor(graph, task.context.settings.num_compute_threads)
        return forward.by_row(task, rows, entry.shape, extractor)

    # Not those of training, which looks at a margin of each image: these are the graph's own.
    logits_NC = plain.logits(served_features(held))
    head = replace(plain, temperature=calibration.temperature(logits_NC, task.labels_N[held]))
    num_params = sum(parameter.numel() for parameter in trunk.parameters())
    return Candidate(
        method=FROM_SCRATCH,
        name=f"from scratch: {entry.what}",
        head=head,
        graph=graph,
        backbone=_backbone(task.backbone, entry, weights.sha256_file(graph), given, num_params),
        shared=False,
        selection=Selection(held, logits_NC, "hold-out of 20 %", "these items also chose it"),
        features=served_features,
        reference=reference,
        seconds=entry.details["seconds"],
        fold_accuracy=(),
        calibrated=len(held) >= calibration.MIN_ITEMS,
        trained_params=num_params + head.num_params,
        details=entry.details,
        moved=tuple(Moved(name, tuple(value.shape), "new") for name, value in _state(trunk).items()),
    )


def _head(layer: nn.Linear) -> LinearHead:
    weight_CD: NDArray[np.float32] = layer.weight.detach().numpy().copy()
    num_features = weight_CD.shape[1]
    nothing_D, one_D = np.zeros(num_features, np.float32), np.ones(num_features, np.float32)
    return LinearHead(weight_CD, layer.bias.detach().numpy().copy(), nothing_D, one_D)


def _backbone(source: Prepared, entry: Entry, digest: str, feature_dim: int, num_params: int) -> Prepared:
    """What the network stands on: itself. Its name is no catalogue's, and its digest no pretrained weights'."""
    return replace(
        source,
        name=f"{FROM_SCRATCH}/{entry.name}",
        architecture=entry.name,
        digest=digest,
        feature_dim=feature_dim,
        split="",
        activation_shape=None,
        num_params=num_params,
        licence=NO_LICENCE,
        preprocess=entry.shape,
        new=(),
        num_new=num_params,
    )


def _state(trunk: nn.Module) -> dict[str, Any]:
    """By the provider's own names, where there is a provider's network inside."""
    return dict(getattr(trunk, "network", trunk).state_dict())
