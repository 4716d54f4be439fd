"""Each loss against a loop that follows the paper line by line."""

import math

import pytest
import torch

from worker.domains import losses


def softmax(row, temperature=1.0):
    parts = [math.exp(value / temperature) for value in row]
    return [part / sum(parts) for part in parts]


def confusion_reference(logits, temperature):
    """ArXiv 1912.03699, equations 3 to 8."""
    rows = [softmax(row, temperature) for row in logits]
    weights = [1 + math.exp(sum(value * math.log(value) for value in row)) for row in rows]
    weights = [len(rows) * weight / sum(weights) for weight in weights]
    classes = range(len(rows[0]))
    confusion = [
        [sum(weight * row[a] * row[b] for weight, row in zip(weights, rows, strict=True)) for b in classes]
        for a in classes
    ]
    confusion = [[value / sum(line) for value in line] for line in confusion]
    return sum(confusion[a][b] for a in classes for b in classes if a != b) / len(classes)


def logits(num, seed, num_classes=5):
    return 3 * torch.randn(num, num_classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_class_confusion_is_the_papers(temperature):
    found = losses.class_confusion(logits(9, 0), temperature)
    assert math.isclose(float(found), confusion_reference(logits(9, 0).tolist(), temperature), rel_tol=1e-4)


def test_sure_and_distinct_names_are_not_confused():
    sure = 100.0 * torch.eye(4)
    assert float(losses.class_confusion(sure)) < 1e-5
    assert float(losses.class_confusion(torch.zeros(4, 4))) == pytest.approx(3 / 4)


def test_domain_confusion_counts_each_domain_half():
    source, target = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.7])
    own = sum(-math.log(1 / (1 + math.exp(-value))) for value in source.tolist()) / 3
    other = -math.log(1 - 1 / (1 + math.exp(-target.item())))
    assert float(losses.domain_confusion(source, target)) == pytest.approx(0.5 * (own + other), rel=1e-5)


def test_margin_disparity_is_the_papers():
    source, source_adversary = logits(6, 1), logits(6, 2)
    target, target_adversary = logits(4, 3), logits(4, 4)
    agree = disagree = 0.0
    for one, other in zip(source.tolist(), source_adversary.tolist(), strict=True):
        agree -= math.log(softmax(other)[one.index(max(one))]) / 6
    for one, other in zip(target.tolist(), target_adversary.tolist(), strict=True):
        disagree += math.log(1 - softmax(other)[one.index(max(one))]) / 4
    found = losses.margin_disparity(source, source_adversary, target, target_adversary, margin=4.0)
    assert float(found) == pytest.approx(4.0 * agree - disagree, rel=1e-4)


def test_the_reversed_gradient_is_turned_and_scaled():
    value = torch.tensor([1.0, -2.0], requires_grad=True)
    turned = losses.reverse(value, 0.25)
    assert torch.equal(turned, value)
    turned.pow(2).sum().backward()
    assert torch.equal(value.grad, -0.25 * 2 * value.detach())


def test_the_adversary_grows_from_nothing_to_all():
    assert losses.ramp(0.0) == 0.0
    assert 0.9 < losses.ramp(0.5) < losses.ramp(1.0) < 1.0
