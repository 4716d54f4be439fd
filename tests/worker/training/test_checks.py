"""Looks at held-out items, item by item, and the state that a run would have kept had it seen some of them alone."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from worker.training import checks


def logits(seed, number=40):
    return np.random.default_rng(seed).standard_normal((number, 3)) * 3


def test_a_look_has_the_loss_of_each_item():
    labels_N = np.arange(40) % 3
    found = checks.look(logits(0), labels_N)
    expected = functional.cross_entropy(torch.from_numpy(logits(0)), torch.from_numpy(labels_N), reduction="none")
    assert found.loss_N == pytest.approx(expected.numpy(), rel=1e-6)
    assert found.predicted_N.tolist() == logits(0).argmax(1).tolist()
    assert found.loss_N.mean() == pytest.approx(checks.check(logits(0), labels_N, 0).loss, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_items_is_what_a_run_keeps(seed):
    labels_N = np.arange(40) % 3
    states = [logits(100 * seed + epoch) + np.eye(3)[labels_N] * epoch / 2 for epoch in range(8)]
    kept, top = None, 0.0
    for epoch, state in enumerate(states):
        found = checks.check(state, labels_N, epoch)
        top = max(top, found.accuracy)
        kept = found if found.better_than(kept, top, 40) else kept
    looks = [checks.look(state, labels_N) for state in states]
    assert checks.best(looks, labels_N, np.ones(40, bool)) == kept.epoch


def test_items_that_are_not_seen_decide_nothing():
    labels_N = np.zeros(4, np.int64)
    good, bad = np.array([[9.0, 0.0]] * 2 + [[0.0, 9.0]] * 2), np.array([[0.0, 9.0]] * 2 + [[9.0, 0.0]] * 2)
    looks = [checks.look(good, labels_N), checks.look(bad, labels_N)]
    assert checks.best(looks, labels_N, np.array([True, True, False, False])) == 0
    assert checks.best(looks, labels_N, np.array([False, False, True, True])) == 1
