import numpy as np
import torch

from tests.worker.training.test_loop import PLAN, dataset, run, trainer
from worker.training import checks, loop, soup
from worker.training.checks import Check
from worker.training.loop import Progress, Trainer

HELD = dataset(1, 30)


def judged(subject: Trainer, state: dict[str, torch.Tensor], epoch: int = 0) -> Check:
    subject.load(state)
    return checks.check(loop.predict(subject, HELD), HELD.labels_N, epoch)


def trained() -> tuple[Trainer, Progress, dict[str, torch.Tensor]]:
    subject, progress = trainer(), Progress()
    start = subject.copy()
    loop.look(subject, HELD, progress)
    run(subject, PLAN.__class__(**{**{n: getattr(PLAN, n) for n in PLAN.__slots__}, "num_runners": 2}), progress)
    return subject, progress, start


def test_the_next_best_states_are_kept_in_order() -> None:
    subject, progress, _ = trained()
    assert progress.best is not None
    assert len(progress.runners) == len(subject.runners) == 2
    assert progress.best.epoch not in [one.epoch for one in progress.runners]
    assert all(one.epoch > 0 for one in progress.runners)
    for check, state in zip([progress.best, *progress.runners], [subject.best, *subject.runners], strict=True):
        assert judged(subject, state, check.epoch) == check


def test_a_soup_is_the_mean_of_what_the_hold_out_accepts_and_never_worse() -> None:
    subject, progress, _ = trained()
    best, states = progress.best, list(zip(progress.runners, subject.runners, strict=True))
    assert best is not None
    states.append((Check(9, 0.0, 9.0), {name: value + 5 for name, value in subject.best.items()}))
    subject.load(subject.best)
    found, epochs = soup.greedy(subject, HELD, best, states)
    assert found.accuracy >= best.accuracy
    assert found.loss <= best.loss
    assert epochs[0] == best.epoch
    assert 9 not in epochs
    by_epoch = {check.epoch: state for check, state in [(best, subject.best), *states]}
    for name, value in subject.copy().items():
        mean = np.mean([by_epoch[epoch][name].numpy() for epoch in epochs], axis=0)
        np.testing.assert_allclose(value.numpy(), mean, rtol=1e-5, atol=1e-6)
    assert judged(subject, subject.copy(), best.epoch) == found


def test_the_way_back_is_chosen_by_the_hold_out() -> None:
    subject, progress, start = trained()
    assert progress.best is not None
    # Past the good state: going back helps. And at a good state far from a bad start it does not.
    beyond = {name: start[name] + 2 * (value - start[name]) for name, value in subject.best.items()}
    tuned = judged(subject, beyond, 3)
    found, share = soup.interpolate(subject, HELD, tuned, start)
    tried = {
        each: judged(subject, {n: torch.lerp(start[n], v, each) for n, v in beyond.items()}, 3) for each in soup.SHARES
    }
    wanted = min((one for one in tried.values() if one.accuracy >= tuned.accuracy), key=lambda one: one.loss)
    assert found.loss <= tuned.loss
    assert share in soup.SHARES
    assert found.loss >= wanted.loss
    bad = {name: value + 5 for name, value in start.items()}
    good = judged(subject, subject.best, 3)
    assert soup.interpolate(subject, HELD, good, bad) == (good, 1.0)
    assert judged(subject, subject.copy(), 3) == good
