"""How many labels are wrong, and which: what out-of-fold probabilities cannot explain as ordinary doubt. No torch.

A wrong label is a label that was drawn anew: with probability e it is any of the other classes, else it is the true
one. With p = softmax(logits / T) for the true class, the label y of an item has probability

    q = (1 - e) p_y + e (1 - p_y) / (C - 1)

and was drawn anew with posterior probability e (1 - p_y) / (C - 1) / q (symmetric label noise; the same q is the
forward correction of Patrini et al., arXiv 1609.03683, with one free number). Both e and T are those of the largest
likelihood: on ordinary data a temperature alone explains how sure the model is of labels that it gets wrong, and e is
0; labels that were drawn anew are wrong more surely than any temperature allows.

A model that has learned from wrong labels doubts every label a little, and on easy data that doubt explains them as
well as noise does. So the largest e within half a unit of log-likelihood of the best is kept as well: what is surely
wrong under noise that is possible may be shown even where noise is not needed.

Confident learning counts instead (see `confident`); what a weak model confuses, it counts as wrong labels. On 320 emoji
with their own labels it names 20 to 30 images, this none (`docs/advice.md` has all figures).

Shape legend: N items, C classes, T temperatures, R rates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.scores import calibration
from worker.solvers.logits import log_softmax
from worker.solvers.spectrum import row_chunks

Double = NDArray[np.float64]
Ints = NDArray[np.int64]

# Relative to the temperature that fits best without noise: with noise it can only be sharper.
_FACTORS = np.logspace(-1.2, 0.1, 40)
MAX_RATE = 0.5
_RATES = np.concatenate([[0.0], np.geomspace(1e-4, MAX_RATE, 120)])
# In units of log-likelihood; at the border of one standard error.
SUPPORT = 0.5


@dataclass(frozen=True)
class Noise:
    """Label noise of the largest likelihood, and the most that is possible.

    Args:
        rate: e, the share of labels that were drawn anew.
        ratio: twice the gain in log-likelihood over no noise; chi-square with one degree of freedom, halved, where
            there is none.
        temperature: T that goes with the rate.
        wrong_N: posterior probability of every label to have been drawn anew.
        possible_rate: the largest e that explains the labels about as well.
        possible_N: posterior probabilities under it, with the temperature that fits best then.
    """

    rate: float
    ratio: float
    temperature: float
    wrong_N: Double
    possible_rate: float
    possible_N: Double


def fit(logits_NC: NDArray[np.floating], labels_N: Ints) -> Noise:
    """The likelihood over a grid of rates and temperatures.

    Shape:
        logits_NC: [N, C], of a model that has not learned the item
        labels_N: [N]
    """
    num_classes = logits_NC.shape[1]
    plain = calibration.fit_temperature(logits_NC, labels_N)
    temperatures_T = np.append(plain * _FACTORS, plain)
    own_TN = _own(logits_NC, labels_N, temperatures_T)
    other_TN = (1 - own_TN) / (num_classes - 1)
    likelihood_RT = np.stack([np.log(own_TN + rate * (other_TN - own_TN)).sum(1) for rate in _RATES])
    profile_R, temperature_R = likelihood_RT.max(1), likelihood_RT.argmax(1)
    best = int(profile_R.argmax())
    most = int(np.flatnonzero(profile_R >= profile_R[best] - SUPPORT)[-1])

    def wrong(place: int) -> Double:
        rate, own_N, other_N = _RATES[place], own_TN[temperature_R[place]], other_TN[temperature_R[place]]
        found: Double = rate * other_N / (own_N + rate * (other_N - own_N))
        return found

    return Noise(
        rate=float(_RATES[best]),
        ratio=2 * float(profile_R[best] - profile_R[0]),
        temperature=float(temperatures_T[temperature_R[best]]),
        wrong_N=wrong(best),
        possible_rate=float(_RATES[most]),
        possible_N=wrong(most),
    )


def _own(logits_NC: NDArray[np.floating], labels_N: Ints, temperatures_T: Double) -> Double:
    """Probability of every item's label at every temperature [T, N]; never quite 0."""
    own_TN = np.empty((len(temperatures_T), len(labels_N)))
    for start, stop in row_chunks(len(labels_N)):
        rows = np.arange(stop - start)
        for place, temperature in enumerate(temperatures_T):
            scores_NC = log_softmax(logits_NC[start:stop].astype(np.float64) / temperature)
            own_TN[place, start:stop] = scores_NC[rows, labels_N[start:stop]]
    return np.exp(np.maximum(own_TN, np.log(np.finfo(np.float64).tiny)))
