"""Extraction from encoded images on a GPU against the same network on synthetic tensors, in one run.

    python benchmarks/gpu.py [--images 8192]

Needs a CUDA device and the prepared starter backbones. Goal: at least 70 % of the synthetic rate. Prints JSON.
"""

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
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
    from worker.backbones import features, prepared
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

    source = (files[index % len(files)] for index in range(num))
    threads = settings.num_compute_threads
    # As a job decodes, with nothing but the shards left out that its images lie in.
    decoded = features.loaded(source, lambda data: preprocess.load(data, shape), threads, size)
    began = time.perf_counter()
    list(extractor.stream(np.stack(batch) for batch in decoded))
    real = num / (time.perf_counter() - began)
    document: dict[str, Any] = {
        "synthetic_images_per_second": round(bare),
        "encoded_images_per_second": round(real),
        "ratio": round(real / bare, 3),
        "decode_threads": threads,
        "meets_goal": real >= GOAL * bare,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
