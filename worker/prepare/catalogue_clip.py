"""Rows of the catalogue for open_clip: the image tower of every pretrained pair, `open_clip/ARCHITECTURE.TAG`.

Measured like the others (worker/prepare/catalogue.py). Left out, and named on stderr, is what cannot be built from
open_clip alone: text towers that are models of the library `transformers`.
"""

import sys
from collections.abc import Iterator
from typing import Any

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME
from timm.models import get_pretrained_cfg, list_pretrained

from app.artifact.preprocess import Preprocess
from app.backbones import OPEN_CLIP, Backbone, Weights
from worker.backbones import clip_network
from worker.prepare.measure import SPDX, measure

# As timm states them for image towers from the same publication.
FAMILIES = {
    "SigLIP": "Apache-2.0",
    "PE-Core": "Apache-2.0",
    "MobileCLIP": "apple-amlr",
    "EVA": "MIT",
    "_224.laion400m": "MIT",
    "_240.laion400m": "MIT",
    "dfn": "apple-ascl",
}
CLIP_PAPER = "2103.00020"
# Of the training, by a part of the name; longer parts stand before their beginnings.
PAPERS = {
    "SigLIP2": "2502.14786",
    "SigLIP": "2303.15343",
    "MobileCLIP2": "2508.20691",
    "MobileCLIP": "2311.17049",
    "PE-Core": "2504.13181",
    "EVA": "2303.15389",
    "CLIPA": "2305.07017",
    "ViTamin": "2404.02132",
    "coca": "2205.01917",
    "metaclip2": "2507.22062",
    "metaclip": "2309.16671",
    "dfn": "2309.17425",
    "datacomp": "2304.14108",
    "commonpool": "2304.14108",
    "laion": "2212.07143",
}


def open_clip_rows() -> Iterator[Backbone]:
    """Every pretrained model of open_clip whose towers can be built."""
    licences = _timm_licences()
    measured: dict[tuple[str, int, int], tuple[int, int, bool]] = {}
    for architecture, tag in open_clip.list_pretrained():
        name = f"{OPEN_CLIP}/{architecture}.{tag}"
        config = clip_network.config(architecture, tag)
        if "hf_model_name" in config["text_cfg"]:
            sys.stderr.write(f"left out {name}: its text tower needs the library transformers\n")
            continue
        origin = open_clip.get_pretrained_cfg(architecture, tag)
        preprocess = _preprocess(config["vision_cfg"].get("image_size", 224), origin)
        key = (architecture, preprocess.height, preprocess.width)
        if key not in measured:
            measured[key] = measure(name, architecture, preprocess)
        num_params, feature_dim, attention = measured[key]
        location, _, file = origin["hf_hub"].rpartition("/")
        licence = licences.get(location) or _first(FAMILIES, f"{name} {location}")
        yield Backbone(
            name=name,
            provider=OPEN_CLIP,
            architecture=architecture,
            num_params=num_params,
            feature_dim=feature_dim,
            preprocess=preprocess,
            licence=licence or f"not stated; see the card of {location}",
            paper=_first(PAPERS, name) or CLIP_PAPER,
            recommended=False,
            rank=None,
            weights=Weights(kind="hub", location=location, file=file or HF_SAFE_WEIGHTS_NAME, classifier=False),
            attention=attention,
        )


def _preprocess(size: int | list[int], origin: dict[str, Any]) -> Preprocess:
    """open_clip squashes or crops; here the centre is cropped for all, so that one decoder serves every backbone."""
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = tuple(origin["mean"]), tuple(origin["std"])
    return Preprocess(height, width, min(height, width), origin["interpolation"], mean, std)


def _timm_licences() -> dict[str, str]:
    """Hub repository -> licence, where timm lists the same repository."""
    found = {}
    for name in list_pretrained():
        cfg = get_pretrained_cfg(name)
        if cfg is not None and cfg.hf_hub_id and cfg.license:
            found[cfg.hf_hub_id] = SPDX.get(cfg.license, cfg.license)
    return found


def _first(table: dict[str, str], words: str) -> str:
    return next((value for part, value in table.items() if part in words), "")
