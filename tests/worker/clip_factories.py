"""Two models of open_clip that are small enough for a test: one shaped like CLIP, one like SigLIP. Random weights."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

from app.artifact.preprocess import Preprocess
from app.backbones import Backbone, Weights
from worker.backbones import networks

IMAGE_SIDE = 64
WIDTH = 32
CLIP: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": IMAGE_SIDE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
# As open_clip's ViT-B-16-SigLIP, with a network of timm that is small and a tokenizer that needs no hub.
SIGLIP: dict[str, Any] = {
    "embed_dim": WIDTH,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
    "text_cfg": {
        "context_length": 16, "vocab_size": 400, "width": 32, "heads": 2, "layers": 2, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip
CONFIGS = {"graft-tiny-clip": CLIP, "graft-tiny-siglip": SIGLIP}


@functools.cache
def register() -> Path:
    """Makes both known to open_clip; the folder has their weights too."""
    folder = Path(tempfile.mkdtemp(prefix="graft-clip-"))
    atexit.register(shutil.rmtree, folder)
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return folder


def tiny(architecture: str = "graft-tiny-clip") -> Backbone:
    """The row that a catalogue would have of it."""
    side = CONFIGS[architecture]["vision_cfg"]["image_size"]
    return Backbone(
        name=f"open_clip/{architecture}.random",
        provider="open_clip",
        architecture=architecture,
        num_params=0,
        feature_dim=WIDTH,
        preprocess=Preprocess(side, side, side, "bicubic", (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
        licence="MIT",
        paper="2103.00020",
        recommended=False,
        rank=None,
        weights=Weights(kind="hub", location="graft/none", file="open_clip_model.safetensors", classifier=False),
    )


@functools.cache
def weights_file(architecture: str = "graft-tiny-clip") -> Path:
    """Random weights in a file such as the hub has; spread, so that texts and images differ in direction."""
    folder = register()
    model = networks.build(tiny(architecture), None, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    path = folder / f"{architecture}.safetensors"
    save_file(model.state_dict(), path)
    return path


def model(architecture: str = "graft-tiny-clip") -> nn.Module:
    """The model as open_clip itself loads it."""
    file = weights_file(architecture)
    found: nn.Module = open_clip.create_model(architecture, pretrained=str(file))
    return found.eval()
