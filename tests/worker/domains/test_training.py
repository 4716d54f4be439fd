"""Small networks between two made-up domains."""

import numpy as np
import pytest
import torch

from worker.contract.network_head import NetworkHead
from worker.domains import training
from worker.domains.fits import TRAINED

STEPS = 120


def blobs(seed=0, per_class=30, width=10):
    """Three classes; in the target each feature has moved a little."""
    generator = np.random.default_rng(seed)
    centres = 2.5 * generator.normal(size=(3, width))
    labels = np.repeat(np.arange(3), per_class)
    source, target = (generator.normal(size=(len(labels), width)) + centres[labels] for _ in range(2))
    return source.astype(np.float32), labels, (target + generator.normal(size=width)).astype(np.float32)


def trained(objective, seed=0, **options):
    source, labels, target = blobs()
    return training.train(objective, source, labels, target, 3, seed, steps=STEPS, **options)


@pytest.mark.parametrize("objective", TRAINED)
def test_both_domains_are_learned(objective):
    source, labels, target = blobs()
    head = trained(objective)
    for feats in (source, target):
        assert (head.logits(feats).argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize("objective", TRAINED)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(objective):
    first, again, other = trained(objective), trained(objective), trained(objective, seed=1)
    assert first.graph() == again.graph()
    assert not np.array_equal(first.weight_CH, other.weight_CH)


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained("mcc")
    assert torch.equal(torch.rand(3), expected)


def test_every_step_is_told_and_may_end_it():
    seen = []
    trained("mcc", on_step=seen.append)
    assert seen == list(range(1, STEPS + 1))

    def enough(step):
        raise InterruptedError(step)

    with pytest.raises(InterruptedError):
        trained("mcc", on_step=enough)


def test_a_feature_that_hardly_moves_is_not_blown_up():
    source, _, _ = blobs()
    source[:, 0] = 1e-5 * source[:, 0]
    _, scale_D = training.scales(source)
    assert scale_D.min() >= 0.49 * np.sqrt((scale_D**2).mean())
    assert scale_D.max() < 10


def test_the_head_is_the_network_that_was_trained():
    source, _, _ = blobs()
    head = trained("mdd")
    assert isinstance(head, NetworkHead)
    standard = torch.from_numpy(((source - head.mean_D) / head.scale_D).astype(np.float32))
    hidden = torch.relu(standard @ torch.from_numpy(head.hidden_HD).T + torch.from_numpy(head.hidden_H))
    expected = hidden @ torch.from_numpy(head.weight_CH).T + torch.from_numpy(head.bias_C)
    np.testing.assert_allclose(head.logits(source), expected.numpy(), atol=1e-4)
