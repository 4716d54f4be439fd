import pytest
import torch
from torch import nn

from worker.training import untrained


@pytest.mark.parametrize("side", [16, 28, 64])
def test_the_small_network_takes_every_side(side: int) -> None:
    network = untrained.small_network()
    assert tuple(network(torch.zeros(2, 3, side, side)).shape) == (2, untrained.WIDTHS[-1])
    assert sum(isinstance(layer, nn.Conv2d) for layer in network) == 4  # type: ignore[attr-defined]


def test_seeds_decide_weights_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        with untrained.seeded(seed):
            weights.append(nn.Linear(3, 2).weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)
