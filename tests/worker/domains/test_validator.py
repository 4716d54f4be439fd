"""The choice among adaptations, on features that are made up."""

import math

import numpy as np
import pytest

from worker.contract.heads import LinearHead
from worker.domains import validator
from worker.domains.fits import CLOSED, SOURCE_ONLY, Data, Fitted
from worker.domains.validator import Evidence


def two_domains(scale=1.0, shift=0.0, seed=0, per_class=40, num_classes=4, width=12):
    """Blobs around class centres; the target is scaled and shifted, each feature by its own amount."""
    generator = np.random.default_rng(seed)
    centres = 2.5 * generator.normal(size=(num_classes, width))
    labels = np.repeat(np.arange(num_classes), per_class)
    source, target = (generator.normal(size=(len(labels), width)) + centres[labels] for _ in range(2))
    factors, offsets = scale ** generator.normal(size=width), shift * generator.normal(size=width)
    rows = np.arange(len(labels))
    moved = (target * factors + offsets).astype(np.float32)
    return Data(source.astype(np.float32), labels, rows, moved, num_classes, 0), labels


def judged(data, names=tuple(CLOSED)):
    cut = validator.halves(data, np.arange(len(data.target_MD)))
    return [validator.look(name, data, cut, CLOSED[name]) for name in names]


def accuracy(data, labels, name):
    return (CLOSED[name](data).head.logits(data.target_MD).argmax(1) == labels).mean()


def test_what_brings_the_domains_together_is_chosen():
    data, labels = two_domains(scale=3.0, shift=12.0)
    found = judged(data)
    choice = validator.choose(found)
    assert found[choice.index].name in ("z_score", "coral")
    assert accuracy(data, labels, found[choice.index].name) > accuracy(data, labels, SOURCE_ONLY) + 0.2
    assert len(choice.reasons) == len(found)


def test_without_a_shift_the_source_alone_is_served():
    data, _ = two_domains()
    found = judged(data)
    assert found[validator.choose(found).index].name == SOURCE_ONLY


def test_names_that_say_nothing_do_not_lead_back():
    data, _ = two_domains(scale=3.0, shift=12.0)
    generator = np.random.default_rng(5)

    def blind(part):
        weight = generator.normal(size=(4, 12)).astype(np.float32)
        zeros, ones = np.zeros(12, np.float32), np.ones(12, np.float32)
        return Fitted(LinearHead(20 * weight, np.zeros(4, np.float32), zeros, ones), None)

    cut = validator.halves(data, np.arange(len(data.target_MD)))
    base, sure = judged(data, (SOURCE_ONLY,))[0], validator.look("blind", data, cut, blind)
    assert validator.choose([base, sure]).index == 0
    assert sure.source_accuracy < 0.6


def test_halves_keep_copies_together():
    data, _ = two_domains()
    groups = np.arange(len(data.target_MD)) // 2
    cut = validator.halves(data, groups)
    assert (cut.target_M[::2] == cut.target_M[1::2]).all()
    for half in (0, 1):
        assert np.bincount(data.labels_N[cut.source_N == half]).min() >= 15


def test_information_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    scores = np.exp(generator.normal(size=(30, 4)))
    probabilities = scores / scores.sum(1, keepdims=True)
    mean = [sum(row[c] for row in probabilities) / 30 for c in range(4)]
    own = sum(-value * math.log(value) for row in probabilities for value in row) / 30
    expected = -sum(value * math.log(value) for value in mean) - own
    assert validator.mutual_information(probabilities) == pytest.approx(expected)
    assert validator.mutual_information(np.eye(4)) == pytest.approx(math.log(4))


def evidence(name, back, own=0.8, information=1.0, num=400):
    right = [np.arange(num) % 100 < 100 * share for share in (own, back)]
    return Evidence(name, right[0].astype(float), right[1].astype(float), information, 1.0, None)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], "source_only"),
        ([evidence("worse", 0.40, information=9.0)], "source_only"),
        ([evidence("equal", 0.50, information=9.0)], "source_only"),
        ([evidence("better", 0.60)], "better"),
        ([evidence("better", 0.70), evidence("surer", 0.60, information=2.0)], "surer"),
        ([evidence("forgot", 0.70, own=0.6)], "source_only"),
    ],
)
def test_the_rule(others, chosen):
    found = [evidence("source_only", 0.50), *others]
    choice = validator.choose(found)
    assert found[choice.index].name == chosen
    assert chosen in choice.why
