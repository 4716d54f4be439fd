"""open_clip's models as torch networks: an image tower and a text tower that meet in one space (arXiv 2103.00020).

Used at preparation and wherever a network is trained; jobs on cached features run the exported graphs. open_clip is
imported by the functions that need it, so that no other job pays for it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ImageTower(nn.Module):
    """Image embeddings as the tower projects them into the common space; their length is left as it is.

    Shape:
        images: [N, 3, H, W]; result: [N, D]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The tower's embedding; CoCa's tower gives its tokens too."""
        value: Tensor | tuple[Tensor, ...] = self.network(images)
        return value if isinstance(value, Tensor) else value[0]


class TextTower(nn.Module):
    """Token numbers -> text embeddings of length 1.

    Shape:
        tokens_NL: [N, L] int64, L the model's own context length; result: [N, D]
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_NL: Tensor) -> Tensor:
        """What the model's own `encode_text` gives, normalised."""
        encode: Callable[..., Tensor] = self.model.encode_text  # type: ignore[assignment]
        return functional.normalize(encode(tokens_NL, normalize=False), dim=-1)


def config(architecture: str, tag: str) -> dict[str, Any]:
    """open_clip's configuration of a model; QuickGELU as the tag's weights were trained, which open_clip only warns of.

    Raises:
        ValueError: open_clip does not know the architecture.
    """
    from open_clip import get_model_config, get_pretrained_cfg

    found: dict[str, Any] | None = get_model_config(architecture)
    if found is None:
        raise ValueError(f"expected an architecture that open_clip knows, found {architecture!r}")
    if get_pretrained_cfg(architecture, tag).get("quick_gelu"):
        found["quick_gelu"] = True
    return found


def build(architecture: str, tag: str, weights: Path | None) -> nn.Module:
    """The whole model, both towers.

    Args:
        architecture: open_clip's name of it.
        tag: of the weights.
        weights: file in one of the layouts that open_clip converts, read without running its code; None for random.
    """
    import open_clip
    from open_clip.factory import load_checkpoint

    found = config(architecture, tag)
    is_custom = found.pop("custom_text", False)
    if "timm_model_name" in found["vision_cfg"]:
        found["vision_cfg"]["timm_model_pretrained"] = False
    kind = open_clip.CustomTextCLIP if is_custom else open_clip.CLIP
    if "multimodal_cfg" in found:
        kind = open_clip.CoCa
    model: nn.Module = kind(**found, cast_dtype=None)
    if weights is not None:
        load_checkpoint(model, str(weights), strict=True, weights_only=True)
    return model.eval()


def image_tower(model: nn.Module) -> ImageTower:
    """The part that a transfer starts from."""
    return ImageTower(model.visual)  # type: ignore[arg-type]


def text_state(model: nn.Module) -> dict[str, Tensor]:
    """Everything of a model but its image tower."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("visual.")}


def logit_scale(model: nn.Module) -> float:
    """What cosines are multiplied by before the softmax, or SigLIP's sigmoid; stored as its logarithm."""
    value: Tensor = model.logit_scale  # type: ignore[assignment]
    return float(value.detach().to(torch.float32).exp().reshape(-1)[0])
