"""Fine-tuning on a CPU, images/s: the last stage on cached activations, behind a recomputed prefix, and everything.

    python benchmarks/fine_tune.py [--images 128] [--threads N]

Prints one JSON document. All three run through the product's own loop on EfficientNet-Lite0 at 224 pixels, in turns, in
one process; what recomputes pays for augmentation too, as training does. The first pass of each only warms up.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
# As in the worker: threads that spin while they wait would take the cores from those that prepare batches.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn

from app.settings import Settings
from worker.backbones import networks, prepared, split
from worker.backbones.export import FromPixels
from worker.backbones.features import graph_extractor
from worker.backbones.prepared import Prepared
from worker.contract.heads import LinearHead
from worker.fine_tuning import scopes
from worker.fine_tuning.network import Network
from worker.training import loop, optim
from worker.training.batches import Data, Source
from worker.training.inputs import ArraySource, ImageSource
from worker.training.loop import Plan, Progress, Trainer

GOAL = 5.0
NAME, CLASSES, BATCH = "timm/tf_efficientnet_lite0", 10, 32
REPEATS = 3


def trainer(trunk: nn.Module, feature_dim: int, device: str = "cpu") -> Trainer:
    """As a job's: on a GPU compiled."""
    rng = np.random.default_rng(0)
    weight = 0.01 * rng.standard_normal((CLASSES, feature_dim), dtype=np.float32)
    zeros, ones = np.zeros(feature_dim, np.float32), np.ones(feature_dim, np.float32)
    network = Network(trunk, LinearHead(weight, zeros[:CLASSES], zeros, ones))
    network.to(device).to(memory_format=torch.channels_last)
    trainable = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = optim.build(optim.CONVOLUTIONAL, trainable.values(), {}, 1e-4)
    forward = torch.compile(network) if device == "cuda" else network
    return Trainer(network, optimizer, trainable, device, forward)


def images_per_second(trainer: Trainer, source: Source, num: int, micro_batch: int) -> Callable[[], float]:
    data = Data(source, np.arange(num, dtype=np.int64) % CLASSES)

    def run() -> float:
        plan = Plan(epochs=1, batch_size=BATCH, seed=0, checks=False)
        began = time.monotonic()
        loop.train(trainer, data, data, plan, Progress(micro_batch=micro_batch), lambda: False, print, print)
        return num / (time.monotonic() - began)

    return run


def measure(backbone: Prepared, num: int, threads: int) -> dict[str, Any]:
    shape = backbone.preprocess
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num, shape.resize, shape.resize, 3), dtype=np.uint8)
    margin = (shape.resize - shape.height) // 2
    plain = np.ascontiguousarray(images[:, margin : margin + shape.height, margin : margin + shape.width])
    assert backbone.prefix is not None
    extract = graph_extractor(backbone.prefix, threads)
    began = time.monotonic()
    activations = np.concatenate([extract(plain[start : start + 16]) for start in range(0, num, 16)])
    extraction = num / (time.monotonic() - began)

    cut_network = networks.restore(backbone)
    cut = split.split(cut_network, shape.height, shape.width)
    assert cut is not None
    cut_network.requires_grad_(False)
    cut.suffix.requires_grad_(True)
    frozen, whole = networks.restore(backbone), networks.restore(backbone)
    scopes.freeze_prefix(frozen)
    with ThreadPoolExecutor(threads) as pool:
        source, few = ImageSource(images, shape, True, pool), max(BATCH, num // 4)
        dim = backbone.feature_dim
        cached = ArraySource(activations.astype(np.float16)[None])
        runs = {
            "cached": images_per_second(trainer(cut.suffix, dim), cached, num, 0),
            "recomputed": images_per_second(trainer(FromPixels(frozen, shape), dim), source, few, 16),
            "whole": images_per_second(trainer(FromPixels(whole, shape), dim), source, few, 16),
        }
        rounds = [{name: run() for name, run in runs.items()} for _ in range(REPEATS + 1)][1:]
    found = {name: round(statistics.median(one[name] for one in rounds), 1) for name in runs}
    ratio = statistics.median(one["cached"] / one["recomputed"] for one in rounds)
    return {
        "images_per_second": found | {"prefix_in_onnxruntime": round(extraction, 1)},
        "cached_over_recomputed": round(ratio, 2),
        "goal": GOAL,
        "meets_goal": ratio >= GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    settings = Settings()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=settings.num_compute_threads)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.stdout, out = sys.stderr, sys.stdout
    backbone = prepared.find(NAME, [settings.prepared, settings.home_path / "backbones"])
    if backbone is None:
        raise SystemExit(f"expected {NAME} to be prepared; run `make setup`")
    document = {
        "backbone": NAME,
        "threads": options.threads,
        "batch": BATCH,
        **measure(backbone, options.images, options.threads),
    }
    out.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
