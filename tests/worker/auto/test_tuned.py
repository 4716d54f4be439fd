"""Trainings inside `auto`, on a small backbone with random weights."""

import re
from dataclasses import replace

import pytest

from app import recipes
from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.attempt.progress import Reporter
from worker.auto import search, steps
from worker.auto.budget import Budget
from worker.methods.reference import forecast_scratch, holdout

# Hardly apart, so that there is something left to learn; enough of each to train on.
SHADES = {"mauve": (147, 121, 135), "moss": (144, 125, 127), "rose": (150, 120, 130)}


@pytest.fixture
def shades(tmp_path):
    """A task on a small backbone, with images enough for a training."""
    context = transfer_factories.context(tmp_path, Wire())
    archive = tmp_path / "shades.zip"
    archive.write_bytes(factories.pack(factories.pictures(32, SHADES)))
    transfer_factories.store(context, archive)
    return transfer_factories.task(context, transfer_factories.cnn())


def test_a_training_is_compared_on_its_hold_out_without_the_luck_of_its_epoch(shades):
    outcome = search.run(recipes.Auto(max_minutes=10), shades)
    step = f"fine_tune last_stage of {shades.backbone.name}"
    first, second = (one for one in outcome.decisions if one.step == step)
    assert (first.outcome, second.outcome in ("kept", "dropped")) == ("tried", True)
    assert first.forecast_seconds > 0
    assert "each half at the epoch that the other half chose" in first.reason
    assert outcome.candidate.judged.rows.tolist() == holdout(shades).tolist()
    for scope in ("norm", "ssf", "full"):
        skipped = next(one for one in outcome.decisions if one.step == f"fine_tune {scope} of {shades.backbone.name}")
        assert "needs a GPU" in skipped.reason
    assert outcome.candidate.seconds >= first.seconds


def test_a_training_that_fails_takes_nothing_away(shades, monkeypatch):
    lora = steps._tune("lora", 2, "it is there")
    monkeypatch.setattr(steps, "TUNED", (lora,))
    outcome = search.run(recipes.Auto(max_minutes=10), shades)
    failed = next(one for one in outcome.decisions if one.step.startswith("fine_tune lora"))
    assert failed.outcome == "failed"
    assert failed.reason.startswith("unsupported_scope: ")
    assert outcome.candidate.method in ("linear_probe", "few_shot")


def test_time_is_kept_for_networks_from_scratch_as_long_as_they_fit(shades, monkeypatch):
    """Kept for what cannot start any more, it would be spent on nothing."""
    monkeypatch.setattr(Reporter, "elapsed_seconds", property(lambda self: 0.0))
    budget = Budget(shades, 1)
    for num_cached in (0, 10**6):
        room = budget.room(shades.backbone, num_cached, trained=False)
        assert room.is_followed == (num_cached == 0)
        kept = room.scoring_seconds + (forecast_scratch(0.0) if room.is_followed else 0.0)
        assert room.kept_seconds == pytest.approx(kept)
        assert room.most == pytest.approx((60 - kept) / (3 if room.is_followed else 1))
    room = Budget(shades, 0.2).room(shades.backbone, 0, trained=False)
    assert not room.is_followed
    assert "2.0 s that must follow (2.0 s for scoring) are 12.5 s" in replace(
        room, kept_seconds=2.0, scoring_seconds=2.0
    ).refusal(10.5)


def test_a_training_without_time_or_images_is_skipped_with_its_reason(shades):
    outcome = search.run(recipes.Auto(max_minutes=0.5), shades)
    skipped = next(one for one in outcome.decisions if one.step.startswith("fine_tune last_stage"))
    assert skipped.outcome == "skipped"
    own, kept, scoring, networks, total, left = (
        float(number)
        for number in re.search(
            r"not fit: 3 x ([\d.]+) s .* and ([\d.]+) s that must follow \(([\d.]+) s for scoring and ([\d.]+) s for "
            r"two networks from scratch\) are ([\d.]+) s, and ([\d.]+) s are left",
            skipped.reason,
        ).groups()
    )
    assert own == pytest.approx(skipped.forecast_seconds)
    assert scoring + networks == pytest.approx(kept, abs=0.11)
    assert 3 * own + kept == pytest.approx(total, abs=0.3)
    assert total > left
    assert skipped.forecast_seconds > 12
