"""Adapters against alpha * y + beta written out behind each layer, and against their folded form."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from app import backbones as catalogue
from worker.backbones import adapters, export, networks

NAMES = {
    "timm/test_resnet": 64,
    "timm/test_efficientnet": 64,
    "timm/mobilenetv3_small_050": 64,
    "timm/test_convnext": 64,
    "timm/test_vit": 160,
}
PLAIN = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.BatchNorm2d)


def features_of(name: str) -> nn.Module:
    found = catalogue.find(name)
    assert found is not None
    features = networks.feature_module(networks.build(found, None, seed=1), found.provider).eval()
    generator = torch.Generator().manual_seed(0)
    for layer in features.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return features


def images(side: int, num: int = 2) -> Tensor:
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(2))


def perturb(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in network.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))


def operators(features: nn.Module, side: int, path: Path) -> Counter[str]:
    found = catalogue.find("timm/test_vit")
    assert found is not None
    export.export_backbone(features, replace(found.preprocess, height=side, width=side, resize=side), path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def behind(alpha: Tensor, beta: Tensor | None) -> Callable[..., Tensor]:
    """Y -> alpha * y + beta, channel by channel, as a hook."""

    def hook(module: nn.Module, _given: tuple[Tensor, ...], result: Tensor) -> Tensor:
        is_last = isinstance(module, nn.Linear | nn.LayerNorm) and not type(module).__name__.endswith("2d")
        shape = [-1] if is_last else [1, -1, 1, 1]
        bias = torch.zeros_like(alpha) if beta is None else beta
        return alpha.reshape(shape) * result + bias.reshape(shape)

    return hook


@pytest.mark.parametrize("name", NAMES)
def test_ssf_is_alpha_times_the_output_plus_beta_borders_included(name: str) -> None:
    side = NAMES[name]
    adapted, plain = features_of(name), features_of(name)
    adapters.add_ssf(adapted, images(side, 1))
    with torch.no_grad():
        torch.testing.assert_close(adapted(images(side)), plain(images(side)), rtol=1e-5, atol=1e-5)
    perturb(adapted)
    layers = dict(plain.named_modules())
    pairs = list(adapters.factors(adapted))
    assert len(pairs) > 10
    for path, alpha, beta in pairs:
        assert isinstance(layers[path], PLAIN)
        # timm's batch norm ends with the activation; alpha and beta stand before it.
        behind_norm = getattr(layers[path], "drop", layers[path])
        behind_norm.register_forward_hook(behind(alpha, beta))
    with torch.no_grad():
        wanted, found = plain(images(side)), adapted(images(side))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        folded = adapters.fold(adapted)
        assert torch.equal(adapted(images(side)), found)
    assert {name.rpartition(".")[0] for name in folded} == {path for path, _, _ in pairs}
    assert not any("parametrizations" in name for name in adapted.state_dict())


def test_a_convolution_before_batch_norm_needs_no_pair_of_its_own() -> None:
    features = features_of("timm/test_resnet")
    adapters.add_ssf(features, images(64, 1))
    assert {type(features.get_submodule(path)).__name__ for path, _, _ in adapters.factors(features)} == {
        "ParametrizedBatchNorm2d"
    }
    # The pair that it could have had lies within what the norm's pair spans.
    generator = torch.Generator().manual_seed(4)
    conv, norm = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5).eval()
    alpha, beta, scale, shift = torch.randn(4, 5, generator=generator)
    norm.running_mean, norm.running_var = torch.randn(5, generator=generator), torch.rand(5, generator=generator) + 0.5
    with torch.no_grad():
        given = images(8)
        both = behind(scale, shift)(norm, (), norm(behind(alpha, beta)(conv, (), conv(given))))
        deviation = (norm.running_var + norm.eps).sqrt()
        one_scale = scale * alpha
        one_shift = shift + scale * ((alpha - 1) * norm.running_mean + beta + 0 * deviation) / deviation
        alone = behind(one_scale, one_shift)(norm, (), norm(conv(given)))
    torch.testing.assert_close(alone, both, rtol=1e-4, atol=1e-4)


def test_folded_graphs_have_the_frozen_ones_operators(tmp_path: Path) -> None:
    """Of a residual network; `methods/test_fine_tune_scopes.py` has the three other kinds, trained and with LoRA."""
    name, side = "timm/test_resnet", 64
    wanted = operators(features_of(name), side, tmp_path / "frozen.onnx")
    for adapt in (adapters.train_norms, lambda network: adapters.add_ssf(network, images(side, 1))):
        features = features_of(name)
        adapt(features)
        perturb(features)
        adapters.fold(features)
        assert operators(features, side, tmp_path / "folded.onnx") == wanted


def test_lora_is_a_product_of_low_rank_and_begins_at_nothing() -> None:
    features, plain = features_of("timm/test_vit"), features_of("timm/test_vit")
    adapters.add_lora(features, 3, 0)
    given = images(160)
    with torch.no_grad():
        assert torch.equal(features(given), plain(given))
    perturb(features)
    before = plain.state_dict()
    with torch.no_grad():
        found = features(given)
        folded = adapters.fold(features)
        assert torch.equal(features(given), found)
    assert len(folded) == 4 * 6
    for name, value in features.state_dict().items():
        difference = value - before[name]
        assert (int(torch.linalg.matrix_rank(difference, atol=1e-4)) if name in folded else int(difference.any())) == (
            3 if name in folded else 0
        ), name


def test_lora_reaches_torchs_own_attention() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    adapters.add_lora(layer, 2, 0)
    perturb(layer)
    assert adapters.fold(layer) == {
        "self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"
    }  # fmt: skip


def test_networks_without_what_a_scope_trains_are_refused() -> None:
    with pytest.raises(ValueError, match="no attention"):
        adapters.add_lora(features_of("timm/test_resnet"), 4, 0)
    with pytest.raises(ValueError, match="no norm"):
        adapters.train_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))


def test_a_standardised_kernel_gets_no_factor() -> None:
    features = features_of("timm/test_nfnet")
    adapters.add_ssf(features, images(96, 1))
    assert not any("Std" in type(features.get_submodule(path)).__name__ for path, _, _ in adapters.factors(features))
