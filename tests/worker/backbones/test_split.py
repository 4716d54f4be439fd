"""Cuts of many families, random weights: equal to the whole, or refused."""

import pytest
import torch
from torch import nn

from app.artifact.preprocess import Preprocess
from app.backbones import Backbone, Weights
from worker.backbones import networks, split

CUTS = {
    "timm/resnet18": "layer4",
    "timm/convnext_atto": "stages.3",
    "timm/mobilenetv3_small_050": "blocks.5",
    "timm/ghostnet_100": "blocks.9",
    "timm/mobilevit_xxs": "stages.4",
    "torchvision/mobilenet_v3_small": "features.12",
    "torchvision/shufflenet_v2_x0_5": "conv5",
    "torchvision/squeezenet1_1": "features.12",
    "torchvision/mnasnet0_5": "layers.14",
    "torchvision/densenet121": "features.denseblock4",
}


def features_of(name: str) -> nn.Module:
    provider, _, architecture = name.partition("/")
    shape = Preprocess(64, 64, 72, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    backbone = Backbone(
        name, provider, architecture, 0, 0, shape, "", "", False, None, Weights(kind="hub", location="")
    )
    return networks.feature_module(networks.build(backbone, None), provider).eval()


@pytest.mark.parametrize("name", CUTS)
def test_chains_are_cut_before_their_last_stage(name: str) -> None:
    features = features_of(name)
    cut = split.split(features, 64, 64)
    assert cut is not None
    assert cut.name == CUTS[name]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        activations = cut.prefix(images)
        torch.testing.assert_close(cut.suffix(activations), features(images))
    assert tuple(activations.shape[1:]) == cut.activation_shape


def test_training_the_suffix_changes_the_network() -> None:
    features = features_of("timm/resnet18")
    cut = split.split(features, 64, 64)
    assert cut is not None
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for parameter in cut.suffix.parameters():
            parameter.mul_(1.01)
        torch.testing.assert_close(cut.suffix(cut.prefix(images)), features(images))


def test_a_torchvision_transformer_is_cut_between_its_blocks() -> None:
    from torchvision.models import VisionTransformer

    network = VisionTransformer(32, 8, num_layers=5, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=1000)
    features = networks.feature_module(network.eval(), "torchvision")
    cut = split.split(features, 32, 32)
    assert cut is not None
    assert cut.name == "blocks.encoder_layer_3"
    assert cut.activation_shape == (17, 16)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(cut.suffix(cut.prefix(images)), features(images))


class Shortcut(nn.Module):
    """A forward pass that is no chain: the input is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.third(self.second(self.first(images))) + images).mean((2, 3))


def test_what_is_no_chain_is_not_cut() -> None:
    assert split.split(networks.TorchvisionFeatures(Shortcut()), 8, 8) is None


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([("a", 70), ("b", 10), ("c", 20)], 2),
        ([("a", 70), ("b", 11), ("c", 19)], 1),
        ([("a", 95), ("b", 5)], 0),
        ([("blocks.0", 50), ("blocks.1", 10), ("head", 40)], 1),
        ([("features.0", 50), ("features.1", 0), ("classifier", 50)], 0),
    ],
)
def test_last_stage(sizes: list[tuple[str, int]], wanted: int) -> None:
    assert split.last_stage(sizes, 0.2) == wanted


def test_replaced_leaves_the_original_alone() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    before = [id(module) for module in network.modules()]
    other = split.replaced(network, {"0.1": split.Pass(), "1": split.Pass()})
    assert [id(module) for module in network.modules()] == before
    value = torch.randn(4, 2)
    assert torch.equal(other(value), network[0][0](value))  # type: ignore[index]
    assert next(other.parameters()) is next(network.parameters())
