import numpy as np
import pytest

from worker.evaluate import episodes
from worker.methods import few_shot_heads

LABELS = np.repeat(np.arange(6), [3, 8, 8, 9, 12, 20])


def nearest(support, labels, num_ways, query):
    return few_shot_heads.centroid(support, labels, num_ways).logits(query).argmax(1)


@pytest.mark.parametrize(("ways", "queries"), [(None, None), (3, 4), (5, 100)])
def test_an_episode_has_its_ways_shots_and_no_image_twice(ways, queries):
    shots = 2 if ways is None else 5
    for seed in range(20):
        drawn = episodes.draw(LABELS, shots, np.random.default_rng(seed), num_ways=ways, num_queries=queries)
        assert not np.intersect1d(drawn.support, drawn.query).size
        assert len(np.unique(drawn.query)) == len(drawn.query)
        assert list(np.bincount(drawn.support_labels)) == [shots] * drawn.num_ways
        own = {label: LABELS[row] for row, label in zip(drawn.support, drawn.support_labels, strict=True)}
        assert len(set(own.values())) == drawn.num_ways == (ways or 6)
        assert all(own[label] == LABELS[row] for row, label in zip(drawn.query, drawn.query_labels, strict=True))
        sizes = np.bincount(drawn.query_labels)
        assert all(
            size == min(queries or 100, (own[label] == LABELS).sum() - shots) for label, size in enumerate(sizes)
        )


def test_all_images_are_drawn_alike():
    drawn = [episodes.draw(LABELS, 1, np.random.default_rng(seed), num_ways=2) for seed in range(3000)]
    counts = np.bincount(np.concatenate([episode.support for episode in drawn]), minlength=len(LABELS))
    per_class = np.bincount(LABELS, weights=counts)
    np.testing.assert_allclose(per_class, 1000, atol=120)
    assert (counts[LABELS == 5] > 0).all()


def test_score_interval_and_deviation():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(len(LABELS), 10)) + 1.2 * rng.normal(size=(6, 10))[LABELS]).astype(np.float32)
    found = episodes.run(features, LABELS, nearest, num_shots=2, num_episodes=40, seed=1)
    assert len(set(found.accuracies)) > 5
    assert found.mean == pytest.approx(sum(found.accuracies) / 40)
    error = (sum((value - found.mean) ** 2 for value in found.accuracies) / 39) ** 0.5 / 40**0.5
    assert (found.low, found.high) == pytest.approx((found.mean - 1.96 * error, found.mean + 1.96 * error), abs=1e-4)
    assert found == episodes.run(features, LABELS, nearest, num_shots=2, num_episodes=40, seed=1)
    assert found != episodes.run(features, LABELS, nearest, num_shots=2, num_episodes=40, seed=2)


def test_noise_gives_chance():
    features = np.random.default_rng(0).normal(size=(len(LABELS), 10)).astype(np.float32)
    found = episodes.run(features, LABELS, nearest, num_shots=2, num_episodes=200, seed=0, num_ways=4, num_queries=3)
    assert abs(found.mean - 0.25) < 0.06


@pytest.mark.parametrize(
    "change",
    [{"num_shots": 3}, {"num_shots": 0}, {"num_ways": 7}, {"num_ways": 1}, {"num_queries": 0}, {"num_episodes": 1}],
)
def test_what_cannot_be_drawn_is_refused(change):
    features = np.zeros((len(LABELS), 2), np.float32)
    given = {"num_shots": 1, "num_episodes": 2, "seed": 0, **change}
    with pytest.raises(ValueError, match="expected at least"):
        episodes.run(features, LABELS, nearest, **given)
