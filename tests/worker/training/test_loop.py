import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.errors import JobFailure
from worker.fine_tuning import pilots
from worker.training import checks, loop, mixing, optim
from worker.training.batches import Data
from worker.training.checks import Check
from worker.training.inputs import ArraySource
from worker.training.loop import Plan, Progress, Trainer

NUM, CLASSES = 90, 3


def dataset(seed: int = 0, num: int = NUM) -> Data:
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % CLASSES
    centres = np.eye(CLASSES, 6, dtype=np.float32) * 2
    views = centres[labels] + generator.standard_normal((3, num, 6), dtype=np.float32)
    return Data(ArraySource(views), labels)


class Small(nn.Module):
    """A layer with batch norm before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.first(inputs))))
        return logits


def trainer(network: nn.Module | None = None, kind: str = "sgd", rate: float = 0.05) -> Trainer:
    if network is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Small()
    trainable = dict(network.named_parameters())
    settings = replace(optim.CONVOLUTIONAL if kind == "sgd" else optim.TRANSFORMER, layer_decay=1.0)
    optimizer = optim.build(settings, trainable.values(), {}, rate)
    return Trainer(network, optimizer, trainable, "cpu", network)


def run(
    of: Trainer,
    plan: Plan,
    progress: Progress | None = None,
    after_step: Callable[[], bool] = lambda: False,
    data: Data | None = None,
) -> tuple[str, Progress, list[dict[str, float | int]], list[str]]:
    progress, epochs, warnings = progress or Progress(), [], []
    ended = loop.train(
        of, data or dataset(), dataset(1, 30), plan, progress, after_step, epochs.append, warnings.append
    )
    return ended, progress, epochs, warnings


PLAN = Plan(epochs=6, batch_size=16, seed=5)


def test_a_step_in_parts_is_left_between_them_and_moves_nothing() -> None:
    subject, progress, asked = trainer(), Progress(micro_batch=4), []

    def leaves() -> bool:
        # Three times in each whole step of sixteen; within the second one, after its first two parts.
        asked.append(progress.step)
        return len(asked) == 5

    states = []
    ended = loop.train(
        subject, dataset(), dataset(1, 30), PLAN, progress,
        lambda: bool(states.append(subject.copy())), lambda _: None, lambda _: None, leaves,
    )  # fmt: skip
    assert (ended, progress.step, progress.step_in_epoch, len(states)) == (loop.ASKED, 1, 1, 1)
    assert all(torch.equal(value, states[0][name]) for name, value in subject.copy().items())


def test_timing_a_step_moves_nothing() -> None:
    subject = trainer()
    before = subject.copy()
    assert pilots.step_seconds(subject.network, dataset(), "cpu") > 0
    assert all(torch.equal(value, before[name]) for name, value in subject.copy().items())
    assert all(parameter.grad is None for parameter in subject.trainable.values())


def test_loss_goes_down_and_the_best_is_kept() -> None:
    subject = trainer()
    ended, progress, epochs, _ = run(subject, PLAN)
    losses = [float(epoch["train_loss"]) for epoch in epochs]
    assert ended == "all epochs"
    assert losses[-1] < 0.5 * losses[0]
    assert progress.step == 6 * math.ceil(NUM / 16)
    assert progress.best is not None
    subject.load(subject.best)
    again = checks.check(loop.predict(subject, dataset(1, 30)), dataset(1, 30).labels_N, 0)
    assert (again.accuracy, again.loss) == (progress.best.accuracy, progress.best.loss)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_at", [1, 6, 17])
def test_a_run_that_is_cut_continues_bit_for_bit(kind: str, stop_at: int) -> None:
    whole = trainer(kind=kind)
    _, wanted, wanted_epochs, _ = run(whole, PLAN)
    first, progress = trainer(kind=kind), Progress()
    run(first, PLAN, progress, lambda: progress.step == stop_at)
    assert progress.step == stop_at
    second = trainer(kind=kind)
    second.network.load_state_dict(first.network.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.best.update(first.best)
    resumed = replace(progress)
    _, found, found_epochs, _ = run(second, PLAN, resumed)
    assert found == wanted
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    timeless = [{**epoch, "images_per_second": 0} for epoch in wanted_epochs]
    assert [{**epoch, "images_per_second": 0} for epoch in found_epochs] == timeless[-len(found_epochs) :]
    # An epoch of which nothing was left to compute has no pace.
    is_over = stop_at % math.ceil(NUM / 16) == 0
    assert ["images_per_second" not in epoch for epoch in found_epochs] == [
        is_over and place == 0 for place in range(len(found_epochs))
    ]


def test_accumulated_gradients_equal_the_whole_batch() -> None:
    whole, parts = trainer(), trainer()
    run(whole, replace(PLAN, epochs=1))
    run(parts, replace(PLAN, epochs=1), Progress(micro_batch=5))
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], value)


class Cramped(nn.Module):
    """A device that holds few images."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.room and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("no room")
        logits: Tensor = self.network(inputs)
        return logits


def test_out_of_memory_halves_what_is_computed_at_once() -> None:
    plain, cramped = trainer(), trainer(Cramped(trainer().network, 5))
    run(plain, replace(PLAN, epochs=1))
    _, progress, _, warnings = run(cramped, replace(PLAN, epochs=1))
    assert progress.micro_batch == 4
    assert len(warnings) == 2
    assert "with 4 images" in warnings[-1]
    for name, value in plain.network.state_dict().items():
        torch.testing.assert_close(cramped.network.state_dict()[f"network.{name}"], value)


def test_out_of_memory_with_a_single_image_is_a_failure() -> None:
    with pytest.raises(JobFailure) as failure:
        run(trainer(Cramped(trainer().network, 0)), PLAN)
    assert failure.value.code == "out_of_memory"


def test_numbers_that_are_none_are_a_failure() -> None:
    with pytest.raises(JobFailure) as failure:
        run(trainer(rate=1e30), PLAN)
    assert failure.value.code == "diverged"
    assert "epoch 1" in failure.value.message


def test_batch_norm_statistics_stay_frozen_unless_asked_for() -> None:
    frozen, moved = trainer(), trainer()
    run(frozen, replace(PLAN, epochs=1))
    run(moved, replace(PLAN, epochs=1, is_training=True))
    assert torch.equal(frozen.network.norm.running_mean, torch.zeros(16))  # type: ignore[union-attr,arg-type]
    assert not torch.equal(moved.network.norm.running_mean, torch.zeros(16))  # type: ignore[union-attr,arg-type]
    assert not torch.equal(frozen.network.norm.weight, torch.ones(16))  # type: ignore[union-attr,arg-type]


def test_a_last_batch_of_one_is_left_out_where_batch_norm_would_fail() -> None:
    _, progress, _, _ = run(trainer(), replace(PLAN, epochs=1, is_training=True), data=dataset(num=33))
    assert progress.step == 2
    _, progress, _, _ = run(trainer(), replace(PLAN, epochs=1), data=dataset(num=33))
    assert progress.step == 3


def test_it_ends_without_gain_and_when_asked() -> None:
    ended, progress, epochs, _ = run(trainer(rate=1e-12), replace(PLAN, epochs=50, patience=3))
    assert ended == "no gain for 3 epochs"
    assert len(epochs) < 50
    ended, progress, _, _ = run(trainer(), PLAN, after_step=lambda: True)
    assert (ended, progress.step) == ("asked to end", 1)


def test_the_clip_bounds_the_step() -> None:
    plain, clipped = trainer(rate=1.0), trainer(rate=1.0)
    before = {name: value.detach().clone() for name, value in plain.trainable.items()}

    def moved(by: Trainer, plan: Plan) -> float:
        run(by, plan, after_step=lambda: True)
        return math.sqrt(
            sum(float((value.detach() - before[name]).square().sum()) for name, value in by.trainable.items())
        )

    assert moved(plain, PLAN) > 0.2
    assert moved(clipped, replace(PLAN, clip=0.01)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("found", "best", "top", "better"),
    [
        (Check(1, 0.9, 0.5), None, 0.9, True),
        (Check(1, 0.9, 0.4), Check(0, 0.9, 0.5), 0.9, True),
        (Check(1, 0.9, 0.6), Check(0, 0.9, 0.5), 0.9, False),
        (Check(1, 0.88, 0.4), Check(0, 0.9, 0.5), 0.9, True),  # within one standard error (0.03)
        (Check(1, 0.8, 0.1), Check(0, 0.9, 0.5), 0.9, False),
        (Check(1, 0.9, 0.6), Check(0, 0.8, 0.5), 0.9, True),
    ],
)
def test_the_lowest_loss_near_the_best_accuracy_is_kept(
    found: Check, best: Check | None, top: float, better: bool
) -> None:
    assert found.better_than(best, top, 100) is better


def test_mixup_is_drawn_by_step_and_keeps_the_batch_at_strength_0() -> None:
    inputs, labels = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 2, 0])
    plain = mixing.mix(inputs, labels, 0.0, np.random.default_rng(0))
    assert plain.inputs is inputs
    assert plain.share == 1.0
    mixed = mixing.mix(inputs, labels, 0.5, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    share, order = generator.beta(0.5, 0.5), generator.permutation(4)
    for item in range(4):
        wanted = share * inputs[item] + (1 - share) * inputs[order[item]]
        torch.testing.assert_close(mixed.inputs[item], wanted, check_dtype=False)
        assert mixed.partners_B[item] == labels[order[item]]
    whole, parts = trainer(), trainer()
    run(whole, replace(PLAN, epochs=1, mixup=0.5))
    run(parts, replace(PLAN, epochs=1, mixup=0.5), Progress(micro_batch=5))
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], value)


def test_l2_sp_keeps_near_the_start() -> None:
    def moved(strength: float) -> float:
        subject = trainer()
        subject.anchor = {name: value for name, value in subject.copy().items() if not name.startswith("head")}
        start = dict(subject.anchor)
        run(subject, replace(PLAN, l2_sp=strength))
        return sum(float((subject.trainable[name].detach() - value).square().sum()) for name, value in start.items())

    assert moved(1.0) < 0.5 * moved(0.0)
