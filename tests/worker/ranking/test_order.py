"""The prior that fades, the paired error, and who goes on."""

from dataclasses import astuple

import numpy as np
import pytest

from worker.ranking import order
from worker.ranking.order import Entry


def entry(name, top1, accuracy, num_images, seed=0, cost=1.0):
    right_N = np.zeros(num_images)
    right_N[: round(accuracy * num_images)] = 1.0
    return Entry(name, top1, cost, np.random.default_rng(seed).permutation(right_N))


def test_score_is_the_posterior_mean_of_normal_errors():
    """Two normal numbers, the prior's and the data's, weighted by their precisions."""
    entries = [entry("a", 70.0, 0.6, 90), entry("b", 80.0, 0.6, 90, seed=1)]
    places = order.order(entries, np.arange(90))
    assert [entries[place.index].name for place in places] == ["b", "a"]
    item_variance = 0.2
    data_precision, prior_precision = 90 / item_variance, order.PRIOR_IMAGES / item_variance
    for place, known in zip(places, (0.65, 0.55), strict=True):
        assert place.expected == pytest.approx(known)
        posterior = (data_precision * 0.6 + prior_precision * known) / (data_precision + prior_precision)
        assert place.score == pytest.approx(posterior)
        assert place.weight == pytest.approx(30 / 120)
    assert places[1].behind == pytest.approx(0.25 * 0.1)


@pytest.mark.parametrize(("num_images", "first"), [(20, "famous"), (2000, "fitting")])
def test_with_few_images_the_name_counts_with_many_the_data(num_images, first):
    entries = [entry("famous", 80.0, 0.70, num_images), entry("fitting", 70.0, 0.75, num_images, seed=1)]
    places = order.order(entries, np.arange(num_images))
    assert entries[places[0].index].name == first


def test_copies_of_a_picture_count_once():
    """Fifty images that are ten pictures: the prior weighs as for ten, the error is that of ten."""
    rng = np.random.default_rng(3)
    first_G, second_G = rng.integers(0, 2, (2, 10)).astype(float)
    groups_N = np.repeat(np.arange(10), 5)
    many = order.order([Entry("a", None, 1, first_G[groups_N]), Entry("b", None, 2, second_G[groups_N])], groups_N)
    few = order.order([Entry("a", None, 1, first_G), Entry("b", None, 2, second_G)], np.arange(10))
    assert [astuple(place) for place in many] == [pytest.approx(astuple(place)) for place in few]


def test_standard_error_is_that_of_the_mean_and_one_picture_more():
    apart_N = np.random.default_rng(4).normal(size=400)
    expected = apart_N.std(ddof=1) / 20
    found = order.standard_error(apart_N, np.arange(400))
    assert found == pytest.approx(np.sqrt(expected**2 + 1 / 400**2))
    assert order.standard_error(np.zeros(50), np.arange(50)) == pytest.approx(1 / 50)


def test_an_unknown_name_is_expected_to_be_like_the_mean_of_the_known():
    accuracy_B = np.array([0.5, 0.7, 0.9])
    np.testing.assert_allclose(order.prior([70.0, None, 80.0], accuracy_B), [0.65, 0.7, 0.75])
    np.testing.assert_allclose(order.prior([None, None, None], accuracy_B), 0.7)
    np.testing.assert_allclose(order.prior([75.0, None, None], accuracy_B), 0.5)


def test_no_score_leaves_what_an_accuracy_can_be():
    """All right or all wrong, the prior still tells them apart, by as much as before, and stays between 0 and 1."""
    top1 = [80.0, None, 70.0]
    for accuracy in (1.0, 0.0, 0.97):
        expected_B = order.prior(top1, np.full(3, accuracy))
        assert 0 <= expected_B.min() < expected_B.max() <= 1
        np.testing.assert_allclose(expected_B - expected_B[1], [0.05, 0, -0.05])
        entries = [Entry(str(name), name, 1.0, np.full(40, accuracy)) for name in top1]
        places = order.order(entries, np.arange(40))
        assert [place.index for place in places] == [0, 1, 2]
        assert all(0 <= place.score <= 1 for place in places)


def test_by_the_prior_alone_nobody_has_a_score():
    blind_N = np.zeros(0)
    entries = [Entry("b", 76.0, 1, blind_N), Entry("own", None, 1, blind_N), Entry("a", 80.0, 1, blind_N),
               Entry("c", 60.0, 1, blind_N)]  # fmt: skip
    places = order.by_prior(entries)
    assert [entries[place.index].name for place in places] == ["a", "b", "own", "c"]
    assert [place.behind for place in places] == pytest.approx([0, 0.04, 0.08, 0.2])
    assert [place.within for place in places] == [True, True, False, False]
    assert {(place.score, place.accuracy, place.expected, place.weight) for place in places} == {
        (None, None, None, 1.0)
    }
    unknown = order.by_prior([Entry("dear", None, 2, blind_N), Entry("cheap", None, 1, blind_N)])
    assert [(place.index, place.within) for place in unknown] == [(1, True), (0, True)]
    with pytest.raises(ValueError, match="at least"):
        order.by_prior([])


def test_of_equals_the_cheaper_is_first():
    scores_N = np.ones(40)
    places = order.order([Entry("dear", 70.0, 2.0, scores_N), Entry("cheap", 70.0, 1.0, scores_N)], np.arange(40))
    assert [place.index for place in places] == [1, 0]
    assert all(place.within for place in places)


def test_the_better_half_goes_on_and_whoever_is_not_clearly_worse():
    def kept(*accuracies):
        entries = [entry(str(number), None, one, 400, seed=number) for number, one in enumerate(accuracies)]
        return [entries[place.index].name for place in order.better_half(order.order(entries, np.arange(400)))]

    assert kept(0.9, 0.5, 0.4, 0.3) == ["0", "1"]
    assert kept(0.9, 0.89, 0.895, 0.3) == ["0", "2", "1"]
    assert kept(0.9, 0.5, 0.4) == ["0", "1"]
    assert kept(0.9) == ["0"]


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        order.order([Entry("a", None, 1, np.ones(3)), Entry("b", None, 1, np.ones(4))], np.arange(3))
    with pytest.raises(ValueError, match="same images"):
        order.order([], np.arange(3))
