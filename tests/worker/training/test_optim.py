import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from app import backbones as catalogue
from worker.backbones import networks
from worker.training import optim


def network(name: str) -> nn.Module:
    found = catalogue.find(name)
    assert found is not None
    return networks.build(found, None)


@pytest.mark.parametrize(
    ("num_images", "largest", "wanted"), [(3, 64, 8), (150, 64, 16), (640, 64, 64), (10**6, 64, 64), (600, 128, 64)]
)
def test_batches_leave_enough_steps(num_images: int, largest: int, wanted: int) -> None:
    assert optim.batch_size(num_images, largest) == wanted


def test_cosine_equals_torchs_schedule() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(21):
        assert math.isclose(optim.cosine(step / 20), schedule.get_last_lr()[0], abs_tol=1e-9)
        optimizer.step()
        schedule.step()


def test_warm_up_is_linear_then_cosine() -> None:
    assert optim.cosine(0.0, 0.1) == 0.0
    assert optim.cosine(0.05, 0.1) == pytest.approx(0.5)
    assert optim.cosine(0.1, 0.1) == pytest.approx(1.0)
    assert optim.cosine(0.55, 0.1) == pytest.approx(0.5)
    assert optim.cosine(1.0, 0.1) == pytest.approx(0.0)


def test_batch_norm_decides_the_optimiser() -> None:
    assert optim.for_network(network("timm/test_resnet")) is optim.CONVOLUTIONAL
    assert optim.for_network(network("timm/test_vit")) is optim.TRANSFORMER


def test_stages_learn_slower_towards_the_input() -> None:
    vit = network("timm/test_vit")
    scales = optim.stage_scales(vit, 0.9)
    assert set(scales) == {id(parameter) for parameter in vit.parameters()}
    blocks = [scales[id(block.norm1.weight)] for block in vit.blocks]  # type: ignore[attr-defined,union-attr]
    assert all(math.isclose(near / far, 1 / 0.9) for far, near in pairwise(blocks))
    assert blocks[-1] == pytest.approx(0.9**2)  # norm and classifier stand after it
    assert scales[id(vit.patch_embed.proj.weight)] < blocks[0]  # type: ignore[union-attr]
    assert scales[id(vit.pos_embed)] < scales[id(vit.patch_embed.proj.weight)]  # type: ignore[union-attr]


def test_groups_keep_their_share_of_the_rate() -> None:
    near, far, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = optim.build(optim.TRANSFORMER, [near, far, bias], {id(far): 0.5}, 1e-2)
    assert isinstance(optimizer, torch.optim.AdamW)
    optim.set_factor(optimizer, 0.1)
    found = {id(group["params"][0]): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found[id(near)] == (pytest.approx(1e-3), 1e-3)
    assert found[id(far)] == (pytest.approx(5e-4), 1e-3)
    assert found[id(bias)] == (pytest.approx(1e-3), 0.0)


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({}, 3e-4),
        ({3e-4: 1.0, 1e-3: 0.9}, 3e-3),
        ({3e-4: 1.0, 1e-3: 0.9, 3e-3: 2.0}, None),
        ({3e-4: 1.2, 1e-3: 1.3, 3e-3: math.inf}, 1e-4),
        ({3e-4: 1.2, 1e-3: 1.3, 3e-3: 2.0, 1e-4: 1.15}, 3e-5),
        ({3e-4: 1.2, 1e-3: 1.3, 3e-3: 2.0, 1e-4: 1.05}, None),
        ({3e-4: 1.2, 1e-3: 1.3, 3e-3: 2.0, 1e-4: 1.15, 3e-5: 1.14}, None),
        ({3e-4: math.inf, 1e-3: math.inf, 3e-3: math.inf}, 1e-4),
    ],
)
def test_pilots_go_down_while_all_rates_harm(losses: dict[float, float], wanted: float | None) -> None:
    assert optim.next_rate(optim.CONVOLUTIONAL, losses, 1.0) == wanted
