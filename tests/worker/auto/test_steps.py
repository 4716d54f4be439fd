"""The table of what `auto` tries, and when."""

import pytest

from worker.auto import steps
from worker.auto.steps import Facts

NORM, SSF, LAST, FULL = (step.name for step in steps.TUNED)


@pytest.mark.parametrize(
    ("images", "median", "device", "wanted"),
    [
        (40, 4, "cpu", set()),
        (40, 4, "cuda", set()),
        (100, 5, "cpu", set()),
        (100, 5, "cuda", {NORM, SSF}),
        (999, 19, "cuda", {NORM, SSF}),
        (400, 20, "cpu", {LAST}),
        (400, 20, "cuda", {NORM, SSF, LAST, FULL}),
        # Many classes of few images each.
        (1000, 4, "cpu", {LAST}),
        (1000, 4, "cuda", {LAST, FULL}),
        (20_000, 200, "cuda", {FULL}),
        (20_000, 200, "cpu", {LAST}),
    ],
)
def test_images_and_device_decide_what_is_trained(images, median, device, wanted):
    facts = Facts(images, median, 10, device)
    assert {step.name for step in steps.TUNED if not step.refusal(facts)} == wanted
    for step in steps.TUNED:
        assert step.name in wanted or str(facts) in step.refusal(facts)


def test_heads_are_always_tried_and_cost_the_same():
    for median in (1, 5, 500):
        facts = Facts(1000, median, 10, "cpu")
        assert {step.name for step in steps.heads(facts)} == {"linear_probe", "few_shot"}
        assert not any(step.refusal(facts) for step in steps.HEADS)
    assert len({step.tier for step in steps.HEADS}) == 1
    assert steps.heads(Facts(20, 4, 5, "cpu"))[0].name == "few_shot"


def test_what_costs_more_comes_later():
    tiers = [step.tier for step in (*steps.HEADS, *steps.TUNED)]
    assert tiers == sorted(tiers)
