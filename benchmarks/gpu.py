"""Extraction and training from encoded images on a GPU against the same network on synthetic tensors, in one run.

    python benchmarks/gpu.py [--images 8192] [--epochs 5] [--device cuda]

Needs a CUDA device and the prepared starter backbones. Goal: at least 70 % of the synthetic rate. Prints JSON.
Training is that of the whole network as a job does it: every image decoded once, which counts, then augmented anew in
each epoch. `--device cpu`, with few images, only shows that the script runs.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.artifact import preprocess
from app.artifact.preprocess import Preprocess
from app.settings import Settings
from benchmarks import fine_tune
from worker.backbones import features, networks, prepared
from worker.backbones.export import FromPixels
from worker.backbones.prepared import Prepared
from worker.backbones.torch_features import TorchExtractor
from worker.training.inputs import ImageSource

BACKBONE = "timm/tf_efficientnet_lite0"
GOAL = 0.7


def encoded(num: int) -> list[bytes]:
    """Smooth random JPEG images of 256 px: decoding costs what a photo's does."""
    generator = np.random.default_rng(0)
    out = []
    for _ in range(num):
        small = Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8))
        target = io.BytesIO()
        small.resize((256, 256), Image.Resampling.BICUBIC).save(target, "JPEG", quality=90)
        out.append(target.getvalue())
    return out


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The same pixels whatever is asked for: what the network takes when nothing has to be prepared."""

    pixels_BHW3: torch.Tensor

    def take(self, items_B: np.ndarray, draws_B: np.ndarray | None) -> torch.Tensor:
        """See worker.training.batches.Source."""
        return self.pixels_BHW3[: len(items_B)]


def decoded(num: int, shape: Preprocess, threads: int, batch: int) -> Iterator[np.ndarray]:
    """Images as a job decodes them, with nothing but the shards left out that they lie in."""
    files = encoded(512)
    source = (files[index % len(files)] for index in range(num))
    return (np.stack(one) for one in features.loaded(source, lambda data: preprocess.load(data, shape), threads, batch))


def extraction(backbone: Prepared, num: int, threads: int, device: str) -> dict[str, Any]:
    """Features of the frozen backbone."""
    extractor = TorchExtractor(backbone, device, "bf16")
    extractor.expect(num)
    size, shape = extractor.batch_size, backbone.preprocess
    synthetic = np.zeros((size, shape.height, shape.width, 3), np.uint8)
    list(extractor.stream([synthetic] * 8))  # compiles and warms up
    began = time.perf_counter()
    list(extractor.stream(synthetic for _ in range(num // size)))
    bare = (num // size) * size / (time.perf_counter() - began)
    images = decoded(num, shape, threads, size)
    began = time.perf_counter()
    list(extractor.stream(images))
    return compared(num / (time.perf_counter() - began), bare)


def training(backbone: Prepared, num: int, epochs: int, threads: int, device: str) -> dict[str, Any]:
    """Epochs over the whole network."""
    shape = backbone.preprocess
    square = replace(shape, height=shape.resize, width=shape.resize)
    trainer = fine_tune.trainer(FromPixels(networks.restore(backbone), shape), backbone.feature_dim, device)
    blank = torch.zeros((fine_tune.BATCH, shape.height, shape.width, 3), dtype=torch.uint8)
    synthetic = fine_tune.images_per_second(trainer, Synthetic(blank), num, 0)
    synthetic()  # compiles and warms up
    began = time.perf_counter()
    for _ in range(epochs):
        synthetic()
    bare = epochs * num / (time.perf_counter() - began)
    began = time.perf_counter()
    images = np.concatenate(list(decoded(num, square, threads, fine_tune.BATCH)))
    with ThreadPoolExecutor(threads) as pool:
        real = fine_tune.images_per_second(trainer, ImageSource(images, shape, True, pool), num, 0)
        for _ in range(epochs):
            real()
    return compared(epochs * num / (time.perf_counter() - began), bare) | {"epochs": epochs}


def compared(real: float, bare: float) -> dict[str, Any]:
    """Rates of encoded images and of synthetic tensors."""
    return {
        "synthetic_images_per_second": round(bare),
        "encoded_images_per_second": round(real),
        "ratio": round(real / bare, 3),
        "meets_goal": real >= GOAL * bare,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device; found none; run this where torch.cuda.is_available()")
    settings = Settings()
    backbone = prepared.find(BACKBONE, [settings.prepared])
    if backbone is None:
        raise SystemExit("expected prepared starter backbones; found none; run `make setup`")
    sys.stdout, out = sys.stderr, sys.stdout
    threads = settings.num_compute_threads
    document: dict[str, Any] = {
        "device": given.device,
        "decode_threads": threads,
        "extraction": extraction(backbone, given.images, threads, given.device),
        "training": training(backbone, given.images, given.epochs, threads, given.device),
    }
    out.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
