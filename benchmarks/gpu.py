"""Extraction from encoded images on a GPU against the same network on synthetic tensors, in one run.

    python benchmarks/gpu.py [--images 8192]

Needs a CUDA device and the prepared starter backbones. Goal: at least 70 % of the synthetic rate. Prints JSON.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

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


def main() -> None:
    import torch

    from app.artifact import preprocess
    from app.settings import Settings
    from worker.backbones import prepared
    from worker.backbones.torch_features import TorchExtractor

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=8192)
    num = parser.parse_args().images
    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device; found none; run this where torch.cuda.is_available()")
    settings = Settings()
    found = prepared.find(BACKBONE, [settings.prepared])
    if found is None:
        raise SystemExit("expected prepared starter backbones; found none; run `make setup`")
    extractor = TorchExtractor(found, "cuda", "bf16")
    extractor.expect(num)
    size = extractor.batch_size
    shape = found.preprocess
    synthetic = np.zeros((size, shape.height, shape.width, 3), np.uint8)
    list(extractor.stream([synthetic] * 8))  # compiles and warms up
    began = time.perf_counter()
    list(extractor.stream(synthetic for _ in range(num // size)))
    bare = num / (time.perf_counter() - began)
    files = encoded(512)

    def batches() -> Iterator[NDArray[np.uint8]]:
        source = (files[index % len(files)] for index in range(num))
        with ThreadPoolExecutor(settings.cores) as threads:
            waiting = [threads.submit(preprocess.load, data, shape) for data in islice(source, 4 * size)]
            while waiting:
                pixels = np.stack([future.result() for future in waiting[:size]])
                waiting = waiting[size:]
                waiting += [threads.submit(preprocess.load, data, shape) for data in islice(source, size)]
                yield pixels

    began = time.perf_counter()
    list(extractor.stream(batches()))
    real = num / (time.perf_counter() - began)
    document: dict[str, Any] = {
        "synthetic_images_per_second": round(bare),
        "encoded_images_per_second": round(real),
        "ratio": round(real / bare, 3),
        "decode_threads": settings.cores,
        "meets_goal": real >= GOAL * bare,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
