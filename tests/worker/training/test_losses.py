import math

import torch

from worker.training.losses import cross_entropy, l2_sp, mixup


def loop_reference(logits: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for scores, label in zip(logits, labels, strict=True):
        norm = sum(math.exp(score) for score in scores)
        total -= math.log(math.exp(scores[label]) / norm)
    return total / len(labels)


def test_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator) * 3
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    assert math.isclose(
        float(cross_entropy(logits, labels)), loop_reference(logits.tolist(), labels.tolist()), rel_tol=1e-5
    )


def test_parts_add_up_to_the_batch() -> None:
    logits, labels = torch.randn(10, 4, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 4
    parts = cross_entropy(logits[:3], labels[:3], 10) + cross_entropy(logits[3:], labels[3:], 10)
    torch.testing.assert_close(parts, cross_entropy(logits, labels))


def test_low_precision_scores_are_summed_in_float32() -> None:
    logits = torch.tensor([[60.0, -60.0]], dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert float(loss) == 120.0


def test_mixup_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 4, generator=generator)
    labels, partners = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 0, 2, 1])
    wanted = 0.0
    for scores, label, partner in zip(logits.tolist(), labels.tolist(), partners.tolist(), strict=True):
        wanted += 0.3 * loop_reference([scores], [label]) + 0.7 * loop_reference([scores], [partner])
    assert math.isclose(float(mixup(logits, labels, partners, 0.3)), wanted / 6, rel_tol=1e-5)


def test_l2_sp_equals_a_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    values, starts = torch.randn(2, 5, generator=generator), torch.randn(2, 5, generator=generator)
    wanted = 0.0
    for value, start in zip(values.flatten().tolist(), starts.flatten().tolist(), strict=True):
        wanted += 0.4 / 2 * (value - start) ** 2
    found = l2_sp(zip(values, starts, strict=True), 0.4)
    assert math.isclose(float(found), wanted, rel_tol=1e-5)
