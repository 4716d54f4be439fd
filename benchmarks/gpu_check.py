"""What can only be checked on a GPU: torch and served graphs agree, and every scope trains and publishes.

    python benchmarks/gpu_check.py

Needs a CUDA device and the prepared starter backbones. Prints one JSON document; fails when something disagrees.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.artifact.precisions import FLOAT, FP16, Precision
from app.serving import providers
from app.serving.runtime import Session
from app.serving.trial import tolerance
from app.settings import Settings
from benchmarks._pipeline import run, stored
from worker.backbones import prepared
from worker.backbones.prepared import Prepared
from worker.backbones.probes import probe_images
from worker.publication.halve import halve

BACKBONE = "timm/tf_efficientnet_lite0"
# bf16 keeps 8 bits of a number: features agree in direction, not in every digit.
MIN_COSINE = 0.995
RECIPES: list[dict[str, Any]] = [
    {"method": "linear_probe"},
    {"method": "fine_tune", "scope": "last_stage", "epochs": 3},
    {"method": "fine_tune", "scope": "full", "epochs": 3, "resolution": 128},
]


def starter() -> Prepared:
    """The backbone that all checks run."""
    found = prepared.find(BACKBONE, [Settings().prepared])
    if found is None:
        raise SystemExit("expected prepared starter backbones; found none; run `make setup`")
    return found


def agreement(found: Prepared, device: str) -> dict[str, Any]:
    """bf16 features of random and of structured images against onnxruntime's."""
    from worker.backbones.torch_features import TorchExtractor

    shape = found.preprocess
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (16, shape.height, shape.width, 3), np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, shape.width).astype(np.uint8)[None, None, :, None], noise.shape)
    images = np.ascontiguousarray(np.concatenate([noise, ramp]))
    expected = Session(found.graph).run(images)[0]
    actual = TorchExtractor(found, device, "bf16")(images)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    cosine = float(((expected * actual).sum(1) / norms).min())
    if cosine < MIN_COSINE:
        raise SystemExit(f"expected features of one direction (cosine >= {MIN_COSINE}); found {cosine:.4f}")
    return {"images": len(images), "min_cosine": round(cosine, 6)}


def serving(found: Prepared) -> list[dict[str, Any]]:
    """The served graph on the GPU against the processor: features within a trial's tolerance, each size of batch."""
    cpu, gpu = Session(found.graph), Session(found.graph, 1, providers.chosen("cuda"))
    return [_beside(found, cpu, gpu, FLOAT, size) for size in providers.SIZES]


def half(found: Prepared, folder: Path) -> list[dict[str, Any]]:
    """Half precision against float32, both on the GPU: features and images per second, each size of batch."""
    graph = folder / "backbone.fp16.onnx"
    halve(found.graph, [probe_images(found.preprocess)], graph)
    whole, small = (Session(path, 1, providers.chosen("cuda")) for path in (found.graph, graph))
    return [
        {**_beside(found, whole, small, FP16, size), "images_per_second_fp32": _rate(found, whole, size)}
        for size in providers.SIZES
    ]


def _beside(found: Prepared, known: Session, tried: Session, precision: Precision, size: int) -> dict[str, Any]:
    images = probe_images(found.preprocess)[:size]
    expected, actual = (session.run(images)[0] for session in (known, tried))
    # Of the largest feature: heads are about as steep as features are large.
    off = float(np.abs(expected - actual).max() / np.abs(expected).max())
    if not off <= tolerance(precision):
        raise SystemExit(f"expected features in {precision} within {tolerance(precision):g}; found {off:.3g} at {size}")
    return {"batch": size, "max_rel": off, "images_per_second": _rate(found, tried, size)}


def _rate(found: Prepared, session: Session, size: int) -> float:
    images = probe_images(found.preprocess)[:size]
    session.run(images)
    began = time.perf_counter()
    for _ in range(50):
        session.run(images)
    return 50 * size / (time.perf_counter() - began)


def transfers(device: str) -> list[dict[str, Any]]:
    """Each method through the real pipeline: features, training, evaluation, bundle, parity."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dataset = stored(Path(folder), ROOT / "examples" / "data" / "emoji.zip", "ds_check")
        for recipe in RECIPES:
            done = run(Path(folder), dataset, recipe, BACKBONE, device)
            rows.append(
                {
                    **recipe,
                    "test_accuracy": round(done["metrics"]["test_accuracy"], 3),
                    "parity_max_abs": done["spec"]["parity"]["max_abs"],
                    "seconds": done["report"]["cost"]["transfer_seconds"],
                }
            )
    return rows


def main() -> None:
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA device; found none; run this where torch.cuda.is_available()")
    backbone = starter()
    found: dict[str, Any] = {"agreement": agreement(backbone, "cuda"), "transfers": transfers("cuda")}
    # onnxruntime's package for a GPU takes the place of the other one, so not every machine that trains has it.
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with tempfile.TemporaryDirectory() as folder:
            found["serving"] = {"batches": serving(backbone), "fp16": half(backbone, Path(folder))}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
