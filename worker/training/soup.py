"""Averages of the weights that a run passed through: greedy soup and WiSE-FT. The hold-out accepts, or nothing changes.

Greedy soup (Wortsman et al., arXiv 2203.05482, recipe 1); departure: its ingredients are the best checks of one run, as
AutoGluon does, instead of several runs. WiSE-FT (Wortsman et al., arXiv 2109.01903, eq. 1) between the model that
training began with, the probe on the frozen backbone, and the tuned one; the share is chosen on the hold-out. Of scope
lora the factors are averaged, not their products.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worker.training import checks, loop
from worker.training.batches import Data
from worker.training.checks import Check
from worker.training.loop import Trainer

# Best states that a soup is made of.
NUM_STATES = 3
SHARES = (0.25, 0.5, 0.75)

State = Mapping[str, Tensor]


def greedy(
    trainer: Trainer, held: Data, best: Check, others: Sequence[tuple[Check, State]]
) -> tuple[Check, tuple[int, ...]]:
    """Adds each further state to the average while that is no worse on the hold-out, in accuracy and in loss.

    Args:
        trainer: its network holds the best state, and afterwards the soup.
        held: items to judge by.
        best: check of the best state.
        others: further states, best first.

    Returns:
        the soup's check, and the epochs that went into it.
    """
    soup = {name: value.detach().clone() for name, value in trainer.trainable.items()}
    epochs = [best.epoch]
    for check, state in others:
        tried = {name: value + (state[name] - value) / (len(epochs) + 1) for name, value in soup.items()}
        found = _check(trainer, held, tried, best.epoch)
        if found.accuracy >= best.accuracy and found.loss <= best.loss:
            soup, best = tried, found
            epochs.append(check.epoch)
    trainer.load(soup)
    return best, tuple(epochs)


def interpolate(trainer: Trainer, held: Data, tuned: Check, start: State) -> tuple[Check, float]:
    """Moves back towards the start where that is no worse on the hold-out.

    Args:
        trainer: its network holds the tuned state, and afterwards the chosen one.
        held: items to judge by.
        tuned: check of the tuned state.
        start: what training began with.

    Returns:
        the chosen state's check, and its share of the tuned one.
    """
    end = {name: value.detach().clone() for name, value in trainer.trainable.items()}

    def state(share: float) -> dict[str, Tensor]:
        return {name: torch.lerp(start[name], value, share) for name, value in end.items()}

    best, chosen = tuned, 1.0
    for share in SHARES:
        found = _check(trainer, held, state(share), tuned.epoch)
        if found.accuracy >= best.accuracy and found.loss <= best.loss:
            best, chosen = found, share
    trainer.load(end if chosen == 1.0 else state(chosen))
    return best, chosen


def _check(trainer: Trainer, held: Data, state: State, epoch: int) -> Check:
    trainer.load(state)
    return checks.check(loop.predict(trainer, held), held.labels_N, epoch)
