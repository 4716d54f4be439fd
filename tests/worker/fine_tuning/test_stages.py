"""Stage by stage, a network against itself with other weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.worker import transfer_factories
from worker.backbones import networks
from worker.evaluate import distortion
from worker.fine_tuning import stages


@pytest.fixture
def images() -> np.ndarray:
    """Forty of noise."""
    side = transfer_factories.cnn().preprocess.height
    return np.random.default_rng(0).integers(0, 256, (40, side, side, 3), np.uint8)


def altered(backbone, folder, name):
    """Its weights as a file, one tensor of them drawn anew."""
    state = networks.state_of(networks.restore(backbone))
    if name is not None:
        state[name] = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(0))
    save_file({key: value.clone() for key, value in state.items()}, folder / "state.safetensors")
    return folder / "state.safetensors"


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_equal_weights_are_alike_in_every_stage(kind, tmp_path):
    backbone = getattr(transfer_factories, kind)()
    side = backbone.preprocess.height
    images = np.random.default_rng(0).integers(0, 256, (32, side, side, 3), np.uint8)
    pair = stages.pair(backbone, backbone.preprocess, altered(backbone, tmp_path, None))
    alike, change = stages.compare(pair, [images[:20], images[20:]])
    assert list(alike)[-1] == stages.FEATURES
    assert len(alike) > 4
    assert list(alike.values()) == pytest.approx([1.0] * len(alike))
    assert change == 0


def test_what_stands_before_the_change_stays_and_what_follows_moves(tmp_path, images):
    backbone = transfer_factories.cnn()
    pair = stages.pair(backbone, backbone.preprocess, altered(backbone, tmp_path, "conv_head.weight"))
    alike, change = stages.compare(pair, [images])
    place = list(alike).index("conv_head")
    values = list(alike.values())
    assert values[:place] == pytest.approx([1.0] * place)
    assert place > 2
    assert all(value < 0.99 for value in values[place:])
    assert change > 0.1
    # The last row is that of the features themselves.
    with torch.no_grad():
        before, after = (network(torch.from_numpy(images)).numpy() for network in pair)
    assert alike[stages.FEATURES] == pytest.approx(distortion.linear_cka(before, after))


def test_weights_of_another_shape_are_refused(tmp_path):
    backbone = transfer_factories.cnn()
    save_file({"conv_stem.weight": torch.zeros(1)}, tmp_path / "state.safetensors")
    with pytest.raises(stages.NotAlike, match="other tensors"):
        stages.pair(backbone, backbone.preprocess, tmp_path / "state.safetensors")
