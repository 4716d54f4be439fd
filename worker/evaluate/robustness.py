"""Accuracy on corrupted test images, of the published graph. A full report has it: every image is run five times.

Shape legend: K images, H x W pixels, D features.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.attempt.context import RunContext
from worker.backbones import features
from worker.contract.task import Rows
from worker.data.samples import Index
from worker.evaluate.corruptions import CORRUPTIONS, Images
from worker.evaluate.served_graph import ServedGraph
from worker.scores import intervals

MAX_IMAGES = 200
WHAT = "severity 1 of ImageNet-C on images as the network takes them, the same ones for each; changes are paired"


def robustness(
    context: RunContext, index: Index, served: ServedGraph, rows: Rows, labels_T: NDArray[np.int64]
) -> dict[str, Any]:
    """Scores what is served on at most MAX_IMAGES of the rows, as they are and corrupted; drawn by the job's seed.

    Shape:
        rows: [T]
        labels_T: [T]
    """
    seed = context.document.seed
    place = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MAX_IMAGES])
    chosen, labels_K = rows[place], labels_T[place]
    order = np.argsort(chosen)
    run = features.graph_extractor(served.graph, context.settings.num_compute_threads)
    right: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in ("", *CORRUPTIONS)}
    for number, (batch, images) in enumerate(features.decoded(context, index, chosen, served.shape)):
        truth = labels_K[order[np.searchsorted(chosen, batch, sorter=order)]]
        for name, found in right.items():
            found.append(_right(served, run, _corrupted(name, images, seed + number), truth))
        context.reporter.check_yield()
    clean_K = np.concatenate(right.pop(""))
    rows_of: list[dict[str, Any]] = []
    for name, parts in right.items():
        ours_K = np.concatenate(parts)
        change = intervals.paired_difference(ours_K, clean_K)
        rows_of.append(
            {
                "name": name,
                "what": CORRUPTIONS[name][0],
                "accuracy": float(ours_K.mean()),
                "change": {"value": change.value, "low": change.low, "high": change.high},
            }
        )
    return {
        "num_images": len(chosen),
        "num_test": len(rows),
        "what": WHAT,
        "accuracy": float(clean_K.mean()),
        "corruptions": rows_of,
        "mean_accuracy": float(np.mean([row["accuracy"] for row in rows_of])),
        "mean_change": float(np.mean([row["change"]["value"] for row in rows_of])),
    }


def _corrupted(name: str, images: Images, seed: int) -> Images:
    return CORRUPTIONS[name][1](images, seed) if name else images


def _right(served: ServedGraph, run: features.Extractor, images: Images, truth: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = served.answers(run(images))[0].argmax(1) == truth
    return found
