"""Confident learning against the paper's equations, item by item."""

import numpy as np

from worker.advice import confident


def by_loops(probs, labels):
    num_classes = probs.shape[1]
    thresholds = []
    for one in range(num_classes):
        own = [probs[item, one] for item in range(len(labels)) if labels[item] == one]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    counts = np.zeros((num_classes, num_classes))
    classes = []
    for item, label in enumerate(labels):
        above = [one for one in range(num_classes) if probs[item, one] >= thresholds[one]]
        best = max(above, key=lambda one, item=item: probs[item, one]) if above else None
        classes.append(label if best is None else best)
        if best is not None:
            counts[label, best] += 1
    return thresholds, counts, classes


def test_it_counts_as_the_equations_do():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(4, 0.4), 200)
    labels = rng.integers(0, 3, 200)  # the last class has no item
    found = confident.learn(probs, labels)
    thresholds, counts, classes = by_loops(probs, labels)
    np.testing.assert_allclose(found.threshold_C, thresholds)
    assert found.class_N.tolist() == classes
    sizes = np.bincount(labels, minlength=4)
    np.testing.assert_allclose(found.joint_CC.sum(1), sizes)
    for label in range(3):
        np.testing.assert_allclose(found.joint_CC[label], counts[label] / counts[label].sum() * sizes[label])


def test_a_class_that_is_never_confident_keeps_its_labels():
    probs = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.5, 0.5], [0.49, 0.51]])
    found = confident.learn(probs, np.array([1, 1, 1, 0, 0]))
    assert found.joint_CC.sum() == 5
    assert np.isfinite(found.joint_CC).all()
