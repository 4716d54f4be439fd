"""Source and a few labels of the target: what is left out has no part in it, and chance is not served."""

from dataclasses import replace

import numpy as np
import pytest

from worker.domains.fits import Data
from worker.methods import target_labels

NUM_CLASSES, WIDTH = 3, 8


def two_domains(num_target: int) -> tuple[Data, np.ndarray]:
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(NUM_CLASSES, WIDTH)) * 3
    labels_N, labels_M = np.arange(30) % NUM_CLASSES, np.arange(num_target) % NUM_CLASSES
    source = (centres[labels_N] + rng.normal(size=(30, WIDTH))).astype(np.float32)
    target = (2 * centres[labels_M] + rng.normal(size=(num_target, WIDTH)) + 1).astype(np.float32)
    return Data(source, labels_N, np.arange(30), target, NUM_CLASSES, 0), labels_M


def test_no_way_knows_the_target_images_that_are_left_out() -> None:
    data, labels_M = two_domains(6)
    other_MD = data.target_MD.copy()
    other_MD[0] += 50
    both = zip(target_labels._ways(data), target_labels._ways(replace(data, target_MD=other_MD)), strict=True)
    for one, two in both:
        assert one.name == two.name
        if one.fit is not None and two.fit is not None:
            heads = [way.fit(data.target_MD[1:], labels_M[1:]).weight_CD for way in (one, two)]
            np.testing.assert_array_equal(*heads, err_msg=one.name)


@pytest.mark.parametrize(("num_items", "num_better", "expected"), [(6, 1, 0), (6, 3, 2), (60, 1, 0), (60, 6, 2)])
def test_the_source_alone_is_served_unless_another_way_is_better_by_more_than_chance(
    num_items: int, num_better: int, expected: int
) -> None:
    source = np.arange(num_items) >= num_better
    worse = np.zeros(num_items, bool)
    best = np.ones(num_items, bool)
    assert target_labels.choose(np.stack([source, worse, best, best])) == expected
