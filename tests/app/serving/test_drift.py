"""Distances to a reference: how often they cry wolf, what they notice, and when they say that they cannot tell."""

import math

import numpy as np
import pytest

from app.artifact import reference
from app.serving import drift
from app.serving.moments import Moments

NUM_FEATURES, NUM_CLASSES, NUM_INSIDE = 100, 6, 20
LABELS = [f"class {number}" for number in range(NUM_CLASSES)]
CENTRES, MIX = (
    np.random.default_rng(7).normal(size=shape) for shape in ((NUM_CLASSES, NUM_INSIDE), (NUM_INSIDE, NUM_FEATURES))
)
MEANS = np.maximum(CENTRES @ MIX / 4 - 0.5, 0)


def draw(rng, number, moved=0.0, wider=1.0, shares=None):
    """Features like a network's: classes, few directions, cut off at 0, and more of them than items."""
    labels = rng.choice(NUM_CLASSES, number, p=shares)
    inside = CENTRES[labels] + wider * rng.normal(size=(number, NUM_INSIDE)) + moved
    features = np.maximum(inside @ MIX / 4 - 0.5, 0)
    logits = (features @ MEANS.T - np.square(MEANS).sum(1) / 2) / 5
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return features.astype(np.float32), (odds / odds.sum(1, keepdims=True)).astype(np.float32)


def asked(rng, num_items, num_images, **what):
    return drift.compare(reference.make(*draw(rng, num_items)), Moments.of(*draw(rng, num_images, **what)), LABELS)


def share(verdict, num, num_items, num_images, **what):
    rng = np.random.default_rng(0)
    return sum(asked(rng, num_items, num_images, **what).verdict == verdict for _ in range(num)) / num


@pytest.mark.parametrize(("num_items", "num_images"), [(40, 60), (40, 600), (300, 100)])
def test_it_hardly_ever_cries_wolf(num_items, num_images):
    """Goal: 5 % of 200 looks at what is the same; most of it are p-values that are too small for few items."""
    assert share("drift", 200, num_items, num_images) <= 0.05


def test_each_p_value_is_as_frequent_as_it_says():
    rng = np.random.default_rng(1)
    found = [asked(rng, 120, 120).distances for _ in range(200)]
    for name in ("scores", "labels", "shift", "spread"):
        p = np.array([one[name].p for one in found])
        # Within four deviations of a binomial of 200 draws; the p-values of counts may be smaller than they say.
        assert 0.0 <= (p < 0.05).mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)
        assert 0.3 <= (p < 0.5).mean() <= 0.7


def test_what_moved_is_noticed_and_named():
    rng = np.random.default_rng(2)
    for what, name in (
        ({"moved": 0.6}, "shift"),
        ({"wider": 1.7}, "spread"),
        ({"shares": [0.75, 0.05, 0.05, 0.05, 0.05, 0.05]}, "labels"),
    ):
        found = asked(rng, 200, 300, **what)
        assert found.verdict == "drift"
        assert found.distances[name].drifted
        assert found.distances[name].level == "large"
    assert found.classes[0].label == LABELS[0]
    assert found.classes[0].share > 2 * found.classes[0].reference_share
    assert any("most of all 'class 0'" in reason for reason in found.reasons)
    assert share("drift", 50, 60, 60, moved=0.6) >= 0.9


def test_scores_that_sank_are_noticed():
    rng = np.random.default_rng(3)
    features, probabilities = draw(rng, 500)
    known = reference.make(features[:250], probabilities[:250])
    unsure = (probabilities[250:] + 0.5) / (1 + 0.5 * NUM_CLASSES)
    found = drift.compare(known, Moments.of(features[250:], unsure), LABELS)
    assert [name for name, one in found.distances.items() if one.drifted] == ["scores"]
    assert 0 < found.jensen_shannon <= 1


def test_too_few_are_said_to_be_too_few():
    rng = np.random.default_rng(4)
    found = asked(rng, 300, 20, moved=5.0)
    assert found.verdict == "not_enough"
    assert found.reasons == (
        "expected at least 50 images in the window; found 20; 30 more are needed, or a longer window",
    )
    found = asked(rng, 20, 500, moved=5.0)
    assert found.verdict == "not_enough"
    assert "a reference of at least 30 test items; found 20" in found.reasons[0]


def test_a_difference_that_does_not_matter_is_no_drift():
    """Many images make it certain, and it is small all the same."""
    rng = np.random.default_rng(5)
    found = asked(rng, 20_000, 20_000, moved=0.03)
    assert found.distances["shift"].p_adjusted < drift.ALPHA
    assert found.distances["shift"].level == "none"
    assert found.verdict == "stable"


def test_one_class_and_one_score_are_compared_where_they_can_be():
    features = draw(np.random.default_rng(6), 200)[0]
    sure = np.tile(np.array([[1.0, 0.0]], np.float32), (100, 1))
    found = drift.compare(reference.make(features[:100], sure), Moments.of(features[100:], sure), ["a", "b"])
    assert found.verdict == "stable"
    assert found.distances.keys() == {"shift", "spread"}


def test_tails_are_those_of_tables():
    for value, degrees, p in ((3.841, 1, 0.05), (6.635, 1, 0.01), (16.919, 9, 0.05), (27.877, 9, 0.001)):
        assert drift.chi_square_tail(value, degrees) == pytest.approx(p, rel=0.1)
    assert drift.chi_square_tail(-1.0, 3) == 1.0
