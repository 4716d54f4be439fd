"""A user's own checkpoints: found in their wrappers, opened in a limited child, mapped, refused or prepared."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from app import backbones as catalogue
from app.backbones import Backbone
from tests.conftest import SMALL_DISK_BYTES
from tests.hostile import checkpoints as hostile
from tests.worker import clip_factories
from worker.backbones import export, networks
from worker.prepare import checkpoint_child, checkpoints, image_tower
from worker.prepare.checkpoints import Refused
from worker.runner import unforeseen

ARCHITECTURE = "timm/test_resnet"


@pytest.fixture(scope="module")
def base() -> Backbone:
    found = catalogue.find(ARCHITECTURE)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return timm.create_model("test_resnet", num_classes=7).state_dict()


def silent(share: float, message: str) -> None:
    pass


def test_another_input_than_the_architectures(base: Backbone, trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_file(trained, file)
    shape = replace(base.preprocess, height=96, width=128, resize=128, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    done = checkpoints.admit("user/mine", replace(base, preprocess=shape), file, tmp_path / "prepared", silent)
    assert done.backbone.preprocess == done.prepared.preprocess == shape
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    (found_ND,) = export.open_session(done.prepared.graph).run(None, {"images": pixels_NHWC})
    network = timm.create_model("test_resnet", num_classes=0)
    network.load_state_dict({name: value for name, value in trained.items() if not name.startswith("fc.")})
    scaled = (torch.from_numpy(pixels_NHWC) / 255 - torch.tensor(shape.mean)) / torch.tensor(shape.std)
    with torch.inference_mode():
        expected_ND = network.eval()(scaled.permute(0, 3, 1, 2))
    np.testing.assert_allclose(found_ND, expected_ND.numpy(), rtol=1e-3, atol=1e-4)


def test_an_input_that_the_architecture_does_not_take(tmp_path: Path) -> None:
    base = catalogue.find("timm/test_vit")
    assert base is not None
    file = tmp_path / "mine.safetensors"
    save_file(timm.create_model("test_vit", num_classes=7).state_dict(), file)
    shape = replace(base.preprocess, height=170, width=170, resize=200)
    with pytest.raises(Refused, match=r"found 170 x 170 pixels.*leave `input.height`"):
        checkpoints.admit("user/mine", replace(base, preprocess=shape), file, tmp_path / "prepared", silent)
    assert not (tmp_path / "prepared").exists()


def test_a_trainers_checkpoint_becomes_a_backbone(
    base: Backbone, trained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "epoch_9.ckpt"
    wrapped = {f"model.{name}": value for name, value in trained.items()}
    torch.save({"epoch": 9, "state_dict": wrapped, "optimizer": {"lr": torch.tensor(0.1)}}, file)
    done = checkpoints.admit("user/mine", base, file, tmp_path / "prepared", silent)
    assert done.report.share == 1.0
    assert done.report.counts["new"] == 0
    assert {entry.source for entry in done.report.entries if entry.status == "skipped"} == {
        "model.fc.weight",
        "model.fc.bias",
    }
    assert (done.backbone.name, done.backbone.provider, done.backbone.architecture) == (
        "user/mine",
        "user",
        ARCHITECTURE,
    )
    restored = networks.state_of(networks.restore(done.prepared))
    assert all(torch.equal(restored[name], trained[name]) for name in restored)
    again = networks.build(done.backbone, done.prepared.weights)
    images = torch.zeros(1, 3, 160, 160)
    with torch.no_grad():
        got = networks.feature_module(again, "user")(images)
        wanted = networks.restore(done.prepared)(images)
    assert torch.equal(got, wanted)
    assert image_tower.digest_of(restored, done.backbone) == done.prepared.digest


def test_all_that_a_training_in_double_precision_keeps_is_not_too_large() -> None:
    """Weights, their moving average and Adam's two moments, and a classifier of many classes with its own."""
    base = catalogue.find("torchvision/resnet18")
    assert base is not None
    num_params = base.num_params + 21_841 * (base.feature_dim + 1)
    catalogue.check_checkpoint_size(base, 4 * 8 * num_params)


def test_a_file_that_no_training_of_the_network_leaves_is_refused_unopened(base: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "large.pt"
    with file.open("wb") as opened:
        opened.truncate(2**30)
    with pytest.raises(Refused, match=r"at most \d+ bytes.*found 1073741824 bytes for timm/test_resnet.*state_dict"):
        checkpoints.admit("user/mine", base, file, tmp_path / "prepared", silent)


@pytest.mark.parametrize("architecture", ["graft-tiny-clip", "graft-tiny-siglip"])
def test_of_a_model_with_two_towers_the_images_is_kept(architecture: str, tmp_path: Path) -> None:
    file = clip_factories.weights_file(architecture)
    clip = clip_factories.tiny(architecture)
    done = checkpoints.admit("user/clip", clip, file, tmp_path / "prepared", silent)
    assert done.report.share == 1.0
    assert done.report.counts["new"] == 0
    assert not done.backbone.text_tower
    images = export.probe_images(clip.preprocess)[:3]
    got = export.open_session(done.prepared.graph).run(None, {"images": images})[0]
    theirs = clip_factories.model(architecture)
    with torch.no_grad():
        wanted = export.FromPixels(theirs.visual, clip.preprocess)(torch.from_numpy(images)).numpy()
    assert abs(got - wanted).max() <= 1e-4 * abs(wanted).max()


def test_a_transformers_own_names_fit(tmp_path: Path) -> None:
    """Its blocks have one number, those that other conversions are translated to have two."""
    file = tmp_path / "vit.safetensors"
    trained = timm.create_model("test_vit").state_dict()
    save_file(trained, file)
    transformer = catalogue.find("timm/test_vit")
    assert transformer is not None
    done = checkpoints.admit("user/vit", transformer, file, tmp_path / "prepared", silent)
    assert done.report.share == 1.0
    restored = networks.state_of(networks.restore(done.prepared))
    (token,) = (value for name, value in restored.items() if name.endswith("cls_token"))
    assert torch.equal(token, trained["cls_token"])


def test_another_architecture_is_refused_with_the_list(base: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    with pytest.raises(Refused, match=r"fills at least 90% of .*conv1.*blocks\.0\.attn") as caught:
        checkpoints.admit("user/other", base, file, tmp_path / "prepared", silent)
    assert caught.value.report is not None
    assert caught.value.report.share < 0.1
    assert not (tmp_path / "prepared").exists()


def test_a_deeper_network_is_refused_with_what_has_no_place(tmp_path: Path) -> None:
    """All that a ResNet-18 has is filled by a ResNet-34, whose other blocks would be dropped."""
    file = tmp_path / "deeper.safetensors"
    save_file(torchvision.models.resnet34().state_dict(), file)
    base = catalogue.find("torchvision/resnet18")
    assert base is not None
    with pytest.raises(Refused, match=r"of a deeper network, with 4\d\.\d% of it in blocks .*layer1\.2\.bn1") as caught:
        checkpoints.admit("user/deeper", base, file, tmp_path / "prepared", silent)
    assert caught.value.report is not None
    assert caught.value.report.share == 1.0
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_hostile_files_are_refused_in_words(name: str, tmp_path: Path) -> None:
    """What the child says of them; the child itself is met in tests/e2e/test_hostile.py."""
    file, canary, result = tmp_path / "file.pt", tmp_path / "ran", tmp_path / "result"
    make, words = hostile.REFUSED[name]
    file.write_bytes(make(canary))
    with warnings.catch_warnings():
        # Torch warns of what it is about to refuse.
        warnings.simplefilter("ignore")
        assert re.search(words, checkpoint_child._answer(file, result, 2**30)["error"])
    assert not canary.exists()
    assert not result.exists()


def test_one_number_that_stands_for_a_terabyte_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "wide.pt"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, file)
    with pytest.raises(Refused, match="found 4000000000000"):
        checkpoints.open_file(file)


def test_a_full_disk_is_no_fault_of_the_weights(small_disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    weight = torch.arange(SMALL_DISK_BYTES // 2, dtype=torch.float32)
    save_file({"weight": weight}, file)
    with pytest.raises(OSError, match="could not be written") as caught:
        checkpoints.open_file(file, scratch=small_disk)
    assert "the disk is full" in unforeseen(caught.value)["failure"]["message"]
    assert list(small_disk.iterdir()) == []
    # Where there is room it is what was sent.
    assert torch.equal(checkpoints.open_file(file, scratch=tmp_path)["weight"], weight)


def test_memory_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "big.safetensors"
    save_file({"weight": torch.zeros(32, 1024, 1024)}, file)
    with pytest.raises(Refused):
        checkpoints.open_file(file, memory_bytes=64 * 2**20)


def test_the_weights_are_found_beside_other_tensors() -> None:
    weights = {"a": torch.zeros(100), "b": torch.zeros(3)}
    content = {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "model": {"state_dict": weights}}
    assert checkpoint_child.largest(content) == weights
    with pytest.raises(ValueError, match="expected a dictionary of tensors, found list"):
        checkpoint_child.largest([1])


def test_tied_tensors_are_written_apart(tmp_path: Path) -> None:
    file = tmp_path / "tied.pt"
    shared = torch.ones(4)
    torch.save({"a": shared, "b": shared}, file)
    state = checkpoints.open_file(file)
    assert sorted(state) == ["a", "b"]
    assert state["a"].data_ptr() != state["b"].data_ptr()
