"""Builders: each kind of weights loads strictly, and the seed alone decides random ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from app import backbones as catalogue
from app.backbones import Backbone
from worker.backbones import networks, weights


def row(name: str) -> Backbone:
    found = catalogue.find(name)
    assert found is not None
    return found


def put(state: dict[str, torch.Tensor], backbone: Backbone, home: Path) -> Path:
    """Writes weights where a download of them would end up."""
    path = weights.download_path(backbone, home)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    located = weights.locate(backbone, home)
    assert located == path
    return path


def equal(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet", "torchvision/squeezenet1_1"])
def test_downloaded_weights_load_strictly(name: str, tmp_path: Path) -> None:
    backbone = row(name)
    source = networks.build(backbone, None, seed=1).state_dict()
    path = put(source, backbone, tmp_path)
    assert equal(networks.build(backbone, path, seed=2), source)
    missing = dict(list(source.items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        networks.build(backbone, put(missing, backbone, tmp_path))


def test_googlenet_loads_with_its_auxiliary_classifiers_and_drops_them(tmp_path: Path) -> None:
    backbone = row("torchvision/googlenet")
    published = torchvision.models.googlenet(weights=None, init_weights=False).state_dict()
    assert any(name.startswith("aux1") for name in published)
    network = networks.build(backbone, put(published, backbone, tmp_path))
    assert not any(name.startswith("aux") for name in network.state_dict())
    assert network.transform_input is True
    features = networks.feature_module(network, "torchvision")
    with torch.no_grad():
        assert features(torch.zeros(2, 3, 224, 224)).shape == (2, backbone.feature_dim)


def test_densenet_loads_from_its_published_names(tmp_path: Path) -> None:
    backbone = row("torchvision/densenet121")
    ours = networks.build(backbone, None, seed=1).state_dict()
    published = {}
    for name, value in ours.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")  # noqa: PLW2901
        if "num_batches_tracked" not in name:
            published[name] = value
    assert sum("norm.1" in name for name in published) == 58 * 4
    network = networks.build(backbone, put(published, backbone, tmp_path))
    assert equal(network, ours)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    backbone = row("timm/test_vit")
    before = torch.random.get_rng_state()
    one, two, other = (networks.build(backbone, None, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_starters_file_must_fit_whole(tmp_path: Path) -> None:
    backbone = row("timm/tf_efficientnet_lite0")
    file = weights.locate(backbone, tmp_path)
    assert file is not None
    state = networks.read_state(file)
    state.pop("_conv_head.weight")
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"expected all 296 tensors in less\.pth"):
        networks.build(backbone, tmp_path / "less.pth")


def test_classifier_rows_turn_features_into_the_networks_scores(tmp_path: Path) -> None:
    backbone = row("timm/tf_efficientnet_lite0")
    network = networks.build(backbone, weights.locate(backbone, tmp_path))
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        scores = network(images)
        rows = networks.classifier_rows(network, "timm")
        assert rows is not None
        weight_CD, bias_C = rows
        features = networks.feature_module(network, "timm")(images)
    torch.testing.assert_close(features @ weight_CD.T + bias_C, scores)
    assert networks.classifier_rows(network, "timm") is None


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_0", "shufflenet_v2_x0_5", "vgg11"])
def test_only_the_last_layer_is_the_classifier(name: str) -> None:
    backbone = replace(row(f"torchvision/{name}"))
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    paths = networks.classifier_paths(network, "torchvision")
    assert len(paths) == 1
    layer = network.get_submodule(paths[0])
    removed = sum(parameter.numel() for parameter in layer.parameters())
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total - removed == backbone.num_params
    assert total == torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit"), tmp_path / "module.pth")
    with pytest.raises(Exception, match="weights_only"):
        networks.read_state(tmp_path / "module.pth")


def test_other_content_is_refused_in_words(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"expected a dictionary of tensors in list\.pth, found list"):
        networks.read_state(tmp_path / "list.pth")


def test_every_provider_has_its_row_in_each_table() -> None:
    providers = {backbone.provider for backbone in catalogue.catalogue()} | {"user"}
    assert set(networks.BUILDERS) == set(networks.WRAPPERS) == set(networks.CLASSIFIERS) == providers
