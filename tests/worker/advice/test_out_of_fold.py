"""Whether labels fit: kappa against scikit-learn, its error against permutations; nobody vouches for its own copy."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from worker.advice import out_of_fold


@pytest.mark.parametrize("seed", range(3))
def test_kappa_and_its_error(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 300, p=[0.6, 0.2, 0.15, 0.05])
    said = np.where(rng.random(300) < 0.3, labels, rng.choice(4, 300, p=[0.4, 0.3, 0.2, 0.1]))
    found = out_of_fold.agreement(said, labels, 4)
    assert found.kappa == pytest.approx(cohen_kappa_score(labels, said))
    spread = np.std([cohen_kappa_score(rng.permutation(labels), said) for _ in range(200)])
    assert found.kappa / found.z == pytest.approx(spread, rel=0.2)
    assert found.is_there


def test_one_class_alone_is_no_agreement():
    found = out_of_fold.agreement(np.zeros(5, np.int64), np.zeros(5, np.int64), 2)
    assert (found.kappa, found.z, found.is_there) == (0.0, 0.0, False)


def test_shuffled_labels_do_not_fit_whatever_their_shares():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 240, p=[0.8, 0.1, 0.1])
    feats = (rng.normal(size=(240, 8)) + 3 * np.eye(3, 8)[labels]).astype(np.float32)
    groups = np.arange(240)
    fits = []
    for given in (labels, rng.permutation(labels)):
        logits = out_of_fold.logits(feats, given, groups, 3, 0)
        fits.append(out_of_fold.agreement(logits.argmax(1), given, 3))
    assert [fit.is_there for fit in fits] == [True, False]
    # The shuffled ones are "predicted" as well, since most have one class: accuracy alone would not tell.
    assert fits[1].accuracy > 0.7


def test_a_copy_with_the_same_wrong_label_does_not_vouch_for_it():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    feats = (rng.normal(size=(80, 4)) + 4 * np.eye(2, 4)[labels]).astype(np.float32)
    groups = np.arange(80)
    feats[1:6], groups[1:6] = feats[0], groups[0]
    labels[:6] = 1
    logits = out_of_fold.logits(feats, labels, groups, 2, 0)
    assert (logits[:6].argmax(1) == 0).all()
