"""What the catalogue states of a network is measured here: built on torch's meta device, without memory or download."""

import torch

from app.artifact.preprocess import Preprocess
from app.backbones import Backbone, Weights
from worker.backbones import adapters, networks

NOT_STATED = "not stated"
# timm writes them in lower case.
SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
    "unknown": NOT_STATED,
    None: NOT_STATED,
}


def measure(name: str, architecture: str, preprocess: Preprocess) -> tuple[int, int, bool]:
    """Parameters without the classifier, the width of the pooled features, and whether LoRA finds attention to adapt.

    Raises:
        ValueError: when the features are not one row per image.
    """
    provider = name.partition("/")[0]
    backbone = Backbone(
        name, provider, architecture, 0, 0, preprocess, "", "", False, None, Weights(kind="hub", location="")
    )
    # torchvision's RegNet computes its widths with tensors, which the meta device cannot do.
    with torch.device("cpu" if name.startswith("torchvision/regnet") else "meta"), torch.no_grad():
        features = networks.feature_module(networks.build(backbone, None), provider).to("meta")
    with torch.device("meta"), torch.no_grad():
        shape = features(torch.zeros(2, 3, preprocess.height, preprocess.width)).shape
    if len(shape) != 2 or shape[0] != 2:
        raise ValueError(f"expected features [2, D] of {name}, found {list(shape)}")
    num_params = sum(parameter.numel() for parameter in features.parameters())
    return num_params, int(shape[1]), adapters.has_attention(features)
