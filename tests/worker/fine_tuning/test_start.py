import numpy as np
from sklearn.linear_model import LogisticRegression

from worker.fine_tuning.start import start_head
from worker.solvers import logistic


def test_the_start_is_a_probe_that_blows_no_feature_up() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 3
    feats = generator.standard_normal((120, 12)).astype(np.float32)
    feats[:, :3] += 2 * np.eye(3, dtype=np.float32)[labels]
    feats[:, 11] = 1e-5 * labels  # tells everything, and hardly moves
    head, accuracy, strength = start_head(feats, labels, np.arange(120), 3, 0)
    assert head.scale_D.min() > 0.4
    assert np.abs(head.weight_CD / head.scale_D)[:, 11].max() < 0.1
    assert accuracy > 0.7
    assert strength in logistic.STRENGTHS
    untouched = LogisticRegression(C=strength, max_iter=5000).fit((feats - head.mean_D) / head.scale_D, labels)
    np.testing.assert_allclose(head.weight_CD, untouched.coef_, atol=2e-3)
