"""Chooses between ways to adapt without a label of the target. Torch-free; target labels cannot be passed in.

Every candidate is fitted on one half of both domains and looked at on the other, both ways round. Seen on the half that
took no part (all of the source's labels are known, none of the target's):

- reverse validation (Zhong et al., ECML 2010; as arXiv 1505.07818, section 5.1.2 uses it): the candidate names the
  target's items, a ridge classifier learns those names, and is tested on the source's labels. Only names that follow
  the classes lead back. Without the halves it fails: the head has learned the very source that it would be tested on,
  and a map that follows its sample looks best (measured: CORAL towards the source, which loses 0.15 on new images);
- the accuracy on the source after the adaptation: one that has forgotten the source is no evidence of anything;
- information maximisation: entropy of the mean prediction minus mean entropy on the target, at the temperature that
  fits the held-out source, so that being sure of oneself is not enough (validators compared: arXiv 2208.07360).

The rule: a candidate must lead back better than the source alone by more than one standard error of the paired
difference, and must not lose more than one on the source; of those that do, the one with the most information is
served. Nothing clearly better: the source alone. Reverse validation says whether the names follow the classes, but on
the way back a second shift is crossed, so that it ranks poorly among those that pass (rank correlation with the true
accuracy on digits -> MNIST -0.06, information 0.83); information alone would trust whatever is sure of itself.

Shape legend: N source items, M target items, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.alignments import unpaired
from worker.contract.adaptation import Confidence
from worker.contract.network_head import NetworkHead
from worker.contract.task import Float
from worker.domains import target_risk
from worker.domains.fits import Data, Fitted
from worker.evaluate import estimate
from worker.evaluate.estimate import negative_entropy
from worker.scores import calibration
from worker.solvers import ridge
from worker.solvers.folds import stratified_group_folds
from worker.solvers.linear import standardise
from worker.solvers.logits import softmax

NUM_HALVES = 2
NAME = "reverse validation on halves, then information maximisation; no target label"


@dataclass(frozen=True)
class Halves:
    """Which half each item is in; copies of one picture are in one.

    Shape:
        source_N: [N], 0 or 1
        target_M: [M], 0 or 1
    """

    source_N: NDArray[np.int64]
    target_M: NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What was seen of one candidate, on items that it had not been fitted to.

    Args:
        name: of the candidate.
        on_source_N: whether each source item is named right after the adaptation.
        way_back_N: whether each source item is named right by what learned the candidate's names for the target.
        information: of the names that it gives to the target; see above.
        temperature: that fits its logits to the held-out source.
        confidence: on both domains, to estimate an accuracy by; it decides nothing.
        beside: what other validators say, for the report alone; see `target_risk`.

    Shape:
        on_source_N, way_back_N: [N]
    """

    name: str
    on_source_N: NDArray[np.float64]
    way_back_N: NDArray[np.float64]
    information: float
    temperature: float
    confidence: Confidence
    beside: dict[str, float | None] = field(default_factory=dict)

    @property
    def source_accuracy(self) -> float:
        """Mean of `on_source_N`."""
        return float(self.on_source_N.mean())

    @property
    def reverse_accuracy(self) -> float:
        """Mean of `way_back_N`."""
        return float(self.way_back_N.mean())

    @property
    def scores(self) -> dict[str, float | None]:
        """For the report."""
        return {
            "reverse_accuracy": self.reverse_accuracy,
            "source_accuracy": self.source_accuracy,
            "information": self.information,
            "temperature": self.temperature,
            "estimated_accuracy": None if estimate.guesses(self.confidence) else estimate.accuracy(self.confidence),
            **self.beside,
        }


@dataclass(frozen=True)
class Choice:
    """Index of the chosen candidate, why it is served, and one reason per candidate, in their order."""

    index: int
    why: str
    reasons: list[str]


def halves(data: Data, groups_M: NDArray[np.int64]) -> Halves:
    """Cuts both domains in two; the source by class.

    Shape:
        groups_M: [M], copies of one picture share a number
    """
    source_N = stratified_group_folds(data.labels_N, data.groups_N, NUM_HALVES, data.seed)
    one_class = np.zeros(len(groups_M), np.int64)
    return Halves(source_N, stratified_group_folds(one_class, groups_M, NUM_HALVES, data.seed))


def look(name: str, data: Data, cut: Halves, fit: Callable[[Data], Fitted], back: Data | None = None) -> Evidence:
    """Fits a candidate on each half and sees how it does on the other.

    Args:
        name: of the candidate.
        data: both domains.
        cut: the halves.
        fit: the candidate.
        back: both domains as the way back sees them, where the candidate has features of its own: the way back is to
            differ in the names alone.
    """
    plain = back or data
    on_source_N, way_back_N = np.zeros(len(data.labels_N)), np.zeros(len(data.labels_N))
    known_N, asked_M = np.zeros(len(data.labels_N)), np.zeros(len(data.target_MD))
    weights_N = np.zeros(len(data.labels_N))
    information, norms, temperatures = [], [], []
    for half in range(NUM_HALVES):
        part = data.part(cut.source_N != half, cut.target_M != half)
        fitted = fit(part)
        mine_N, theirs_M = cut.source_N == half, cut.target_M == half
        source_ND, labels_N = data.source_ND[mine_N], data.labels_N[mine_N]
        target_MD = data.target_MD[theirs_M]
        moved_ND = fitted.moved(source_ND)
        logits_NC = fitted.head.logits(moved_ND)
        temperature = calibration.temperature(logits_NC, labels_N)
        target_logits_MC = fitted.head.logits(target_MD)
        on_source_N[mine_N] = logits_NC.argmax(1) == labels_N
        names_M = target_logits_MC.argmax(1)
        back_NC = way_back(plain.target_MD[theirs_M], names_M, plain.source_ND[mine_N], data.num_classes)
        way_back_N[mine_N] = back_NC.argmax(1) == labels_N
        probabilities_MC = softmax(target_logits_MC / temperature)
        known_N[mine_N] = negative_entropy(softmax(logits_NC / temperature))
        asked_M[theirs_M] = negative_entropy(probabilities_MC)
        information.append(mutual_information(probabilities_MC))
        norms.append(target_risk.nuclear_norm(probabilities_MC))
        source_side, target_side, asked = (
            _hidden(fitted, feats) for feats in (fitted.moved(part.source_ND), part.target_MD, moved_ND)
        )
        weights_N[mine_N] = target_risk.weights(source_side, target_side, asked, data.seed)
        temperatures.append(temperature)
    middle = float(np.exp(np.mean(np.log(temperatures))))
    confidence = Confidence(known_N, on_source_N > 0, asked_M, data.labels_N)
    foretold = target_risk.deep_embedded_validation(1.0 - on_source_N, weights_N)
    beside = {
        "dev_accuracy": None if foretold is None else 1.0 - foretold,
        "nuclear_norm": float(np.mean(norms)),
    }
    return Evidence(name, on_source_N, way_back_N, float(np.mean(information)), middle, confidence, beside)


def _hidden(fitted: Fitted, feats: Float) -> Float:
    """Features as the head itself sees them."""
    return fitted.head.hidden(feats) if isinstance(fitted.head, NetworkHead) else feats


def way_back(target_MD: Float, names_M: NDArray[np.int64], source_ND: Float, num_classes: int) -> NDArray[np.float64]:
    """Scores that source items get from a ridge classifier of the target's given names; lambda by leave-one-out.

    The source is z-scored to the target for every candidate alike: what differs is the names alone.

    Shape:
        target_MD: [M, D]
        names_M: [M]
        source_ND: [N, D]
        result: [N, C]
    """
    moved_ND = unpaired.z_score(source_ND, target_MD).apply(source_ND)
    mean_D, scale_D = standardise(target_MD)
    standard_MD = (target_MD - mean_D) / scale_D
    targets_MC = ridge.one_hot(names_M, num_classes)
    left_out = ridge.leave_one_out(standard_MD, targets_MC)
    linear = ridge.fit(standard_MD, targets_MC, left_out.lambdas[left_out.best_index])
    return np.asarray(linear.outputs((moved_ND - mean_D) / scale_D), np.float64)


def mutual_information(probabilities_MC: NDArray[np.floating]) -> float:
    """Between item and class, by the predictions: entropy of their mean minus their mean entropy (arXiv 2002.08546).

    Shape:
        probabilities_MC: [M, C]
    """
    mean_1C = probabilities_MC.mean(0, keepdims=True)
    return float(_entropy(mean_1C)[0] - _entropy(probabilities_MC).mean())


def choose(found: Sequence[Evidence]) -> Choice:
    """Applies the rule above; the first candidate is the source alone."""
    base = found[0]
    gains = [_paired(one.way_back_N, base.way_back_N) for one in found]
    losses = [_paired(base.on_source_N, one.on_source_N) for one in found]
    fit = [
        index
        for index in range(1, len(found))
        if gains[index][0] > gains[index][1] and losses[index][0] <= losses[index][1]
    ]
    if len(found) == 1:
        index, why = 0, f"{base.name}: no way of adapting it was tried"
    elif not fit:
        index, why = 0, f"{base.name}: nothing led back to the source's labels better by more than one standard error"
    else:
        index = max(fit, key=lambda place: found[place].information)
        why = (
            f"{found[index].name}: leads back to the source's labels at {found[index].reverse_accuracy:.3f}, the "
            f"source alone at {base.reverse_accuracy:.3f}; of the {len(fit)} that are better by one standard error "
            f"it says most of the target ({found[index].information:.3f} nats)"
        )
    reasons = [
        f"{one.name}: on the way back {one.reverse_accuracy:.3f} ({gain:+.4f} +- {error:.4f} over the source alone), "
        f"on the source {one.source_accuracy:.3f} ({-loss:+.4f} +- {doubt:.4f}), information {one.information:.3f}; "
        + _verdict_on(place, index, fit, gain > error)
        for place, (one, (gain, error), (loss, doubt)) in enumerate(zip(found, gains, losses, strict=True))
    ]
    return Choice(index, why, reasons)


def _verdict_on(place: int, chosen: int, fit: list[int], leads_back: bool) -> str:
    """Which part of the rule decided over a candidate."""
    if place == chosen:
        return "served"
    if place == 0:
        return "another is better by the rule"
    if place in fit:
        return "better than the source alone, but with less information than the one that is served"
    return "loses more than one standard error on the source" if leads_back else "not better by one standard error"


def _paired(a_N: NDArray[np.float64], b_N: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of a minus b, and its standard error."""
    difference = a_N - b_N
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _entropy(probabilities_NC: NDArray[np.floating]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities_NC, np.finfo(np.float64).tiny))
    return -np.asarray((probabilities_NC * logs).sum(1), np.float64)
