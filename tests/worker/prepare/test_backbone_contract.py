"""What every backbone must do: a CNN and a MobileNet with their starter weights, a vision transformer with random ones.

Each is exported once for all tests here; the CNNs at 96 pixels, which changes nothing in their graphs but the speed.
The transformer is the small one that methods are tested on.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from app import backbones as catalogue
from app.artifact import foreign
from app.backbones import Backbone
from tests.worker import transfer_factories
from worker.backbones import export, networks, prepared, split, weights
from worker.backbones.prepared import Prepared
from worker.backbones.torch_features import TorchExtractor
from worker.prepare import image_tower

NAMES = ("timm/tf_efficientnet_lite0", "torchvision/mobilenet_v2", transfer_factories.TRANSFORMER)


@dataclass(frozen=True)
class Case:
    """One backbone, prepared, beside the torch module that it came from."""

    backbone: Backbone
    features: nn.Module
    prepared: Prepared
    root: Path


def small(backbone: Backbone) -> Backbone:
    return replace(backbone, preprocess=replace(backbone.preprocess, height=96, width=96, resize=110))


@pytest.fixture(scope="module", params=NAMES, ids=[name.partition("/")[2] for name in NAMES])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    found = catalogue.find(request.param)
    assert found is not None
    if found.name == transfer_factories.TRANSFORMER:
        done = transfer_factories.transformer()
        network = networks.build(found, None, transfer_factories.SEED)
        features = networks.feature_module(network, found.provider)
        return Case(replace(found, preprocess=done.preprocess), features.eval(), done, done.folder.parent)
    backbone, root = small(found), tmp_path_factory.mktemp("prepared")
    file = weights.locate(backbone, root)
    network = networks.build(backbone, file, seed=3)
    done = image_tower.write(network, backbone, "", root, lambda share, message: None)
    features = networks.feature_module(networks.build(backbone, file, seed=3), backbone.provider)
    return Case(backbone, features.eval(), done, root)


def torch_features(case: Case, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return export.FromPixels(case.features, case.backbone.preprocess)(torch.from_numpy(images)).numpy()


def test_features_have_the_catalogues_shape(case: Case) -> None:
    got = torch_features(case, export.probe_images(case.backbone.preprocess)[:3])
    assert got.shape == (3, case.backbone.feature_dim)
    assert case.prepared.feature_dim == case.backbone.feature_dim
    parameters = sum(parameter.numel() for parameter in case.features.parameters())
    assert parameters == case.backbone.num_params == case.prepared.num_params


def test_normalisation_in_the_graph_is_the_published_one(case: Case) -> None:
    shape = case.backbone.preprocess
    images = export.probe_images(shape)[:2]
    by_hand = (images / 255.0 - np.array(shape.mean)) / np.array(shape.std)
    tensor = torch.from_numpy(by_hand.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = case.features(tensor).numpy()
    np.testing.assert_allclose(torch_features(case, images), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_the_split_computes_the_same(case: Case) -> None:
    shape = case.backbone.preprocess
    cut = split.split(case.features, shape.height, shape.width)
    assert cut is not None
    images = torch.randn(3, 3, shape.height, shape.width, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        activations = cut.prefix(images)
        torch.testing.assert_close(cut.suffix(activations), case.features(images))
    assert tuple(activations.shape[1:]) == cut.activation_shape == case.prepared.activation_shape
    assert cut.name == case.prepared.split


def test_the_last_stage_holds_its_share_and_shares_its_tensors(case: Case) -> None:
    shape = case.backbone.preprocess
    cut = split.split(case.features, shape.height, shape.width)
    assert cut is not None
    whole = {id(parameter) for parameter in case.features.parameters()}
    before, after = ({id(parameter) for parameter in part.parameters()} for part in (cut.prefix, cut.suffix))
    assert before | after == whole
    assert not before & after
    held = sum(parameter.numel() for parameter in cut.suffix.parameters())
    assert split.LAST_STAGE_SHARE <= held / case.backbone.num_params < 0.5


@pytest.mark.parametrize("batch", [1, 17])
def test_the_graph_agrees_with_torch(case: Case, batch: int) -> None:
    images = np.random.default_rng(batch).integers(0, 256, (batch, *size(case), 3), dtype=np.uint8)
    got = export.open_session(case.prepared.graph).run(None, {"images": images})[0]
    wanted = torch_features(case, images)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert case.prepared.record["parity"]["max_rel"] <= 1e-4


def test_the_prefix_graph_gives_the_activations(case: Case) -> None:
    assert case.prepared.prefix is not None
    assert case.prepared.activation_shape is not None
    shape = case.backbone.preprocess
    cut = split.split(case.features, shape.height, shape.width)
    assert cut is not None
    images = export.probe_images(shape)[:3]
    got = export.open_session(case.prepared.prefix).run(None, {"images": images})[0]
    with torch.no_grad():
        wanted = export.FromPixels(cut.prefix, shape)(torch.from_numpy(images)).numpy()
    assert got.shape == (3, *case.prepared.activation_shape)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_graphs_are_one_file_with_named_ends_and_no_traces(case: Case) -> None:
    for path, output in ((case.prepared.graph, "features"), (case.prepared.prefix, "activations")):
        assert path is not None
        model = onnx.load(path, load_external_data=False)
        assert [value.name for value in model.graph.input] == ["images"]
        assert [value.name for value in model.graph.output] == [output]
        dimensions = model.graph.input[0].type.tensor_type.shape.dim
        assert dimensions[0].dim_param
        assert [d.dim_value for d in dimensions[1:]] == [*size(case), 3]
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert b"site-packages" not in path.read_bytes()
        foreign.check_importable(path)


def test_restored_weights_are_bit_equal(case: Case) -> None:
    restored = networks.state_of(networks.restore(case.prepared))
    wanted = networks.state_of(case.features)
    assert list(restored) == list(wanted)
    assert all(torch.equal(restored[name], wanted[name]) for name in wanted)
    assert image_tower.digest_of(restored, case.backbone) == case.prepared.digest


def test_torch_extraction_agrees_with_the_graph(case: Case) -> None:
    images = export.probe_images(case.backbone.preprocess)
    wanted = export.open_session(case.prepared.graph).run(None, {"images": images})[0]
    extractor = TorchExtractor(case.prepared, "cpu", "fp32")
    got = np.concatenate(list(extractor.stream([images[:10], images[10:]])))
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(extractor(images[:10]), got[:10])


def test_a_prepared_backbone_is_found_read_and_checked(case: Case) -> None:
    found = prepared.find(case.backbone.name, [case.root / "empty", case.root])
    assert found == case.prepared
    assert prepared.find("timm/other", [case.root]) is None
    assert prepared.intact(case.prepared.folder)
    assert json.loads((case.prepared.folder / "record.json").read_text())["digest"] == case.prepared.folder.name
    assert sorted(entry.name for entry in case.root.iterdir()) == sorted([case.prepared.digest, "names"])


def test_a_damaged_file_is_noticed(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / case.prepared.digest
    folder.mkdir()
    for file in case.prepared.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    copy = prepared.read(folder)
    assert prepared.intact(copy.folder)
    content = bytearray(copy.graph.read_bytes())
    content[len(content) // 2] ^= 1
    copy.graph.write_bytes(content)
    assert not prepared.intact(copy.folder)


def size(case: Case) -> tuple[int, int]:
    return case.backbone.preprocess.height, case.backbone.preprocess.width
