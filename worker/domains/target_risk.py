"""What other validators say of an adaptation without a label of the target; for the report, they choose nothing.

- DEV (You et al., Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML 2019): mistakes on
  held-out source items, each weighted by how much likelier its features are in the target, with a control variate
  against the weights' variance. It needs domains that overlap: where a line tells them apart, a handful of items carry
  all weight, and nothing is said.
- BNM (Cui et al., arXiv 2003.12237): the nuclear norm of the predictions on the target, large where they are sure and
  of many classes.

Torch-free. Shape legend: N source items, M target items, K held-out source items, D features, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from worker.alignments.unpaired import sample
from worker.solvers import logistic
from worker.solvers.folds import stratified_group_folds
from worker.solvers.linear import standardise

# Of each domain, for the classifier that the weights come from: a quarter of a second.
SAMPLES = 500
STRENGTHS = (1e-4, 1e-3, 1e-2)
_NUM_FOLDS = 3
# A share is not told from fewer items than this: half of its 95 % interval would be 0.18 and more.
MIN_EFFECTIVE = 30.0
# Over the source, a ratio of densities is 1 in the mean; where hardly a source item lies in the target it is far below.
MEAN_BOUNDS = (0.5, 2.0)
# Of a weight's logarithm: one item has all the weight long before, and sums of squares stay finite.
_MAX_LOG = 100.0

Floats = NDArray[np.floating]
Double = NDArray[np.float64]


def weights(source_ND: Floats, target_MD: Floats, asked_KD: Floats, seed: int) -> Double:
    """How much likelier items are in the target than in the source, by a logistic regression of domains.

    Args:
        source_ND: that the classifier learns from; it has not met the items that are asked about.
        target_MD: likewise.
        asked_KD: source items.
        seed: of the sample and the folds.

    Shape:
        result: [K], around 1 where the domains are alike
    """
    source, target = sample(source_ND, SAMPLES, seed), sample(target_MD, SAMPLES, seed + 1)
    rows = np.concatenate([source, target])
    is_target = np.repeat([0, 1], [len(source), len(target)])
    mean_D, scale_D = standardise(rows)
    standard = (rows - mean_D) / scale_D
    folds = stratified_group_folds(is_target, np.arange(len(rows)), _NUM_FOLDS, seed)
    found = logistic.cross_validate(standard, is_target, folds, 2, STRENGTHS)
    best = found.best_index
    linear = logistic.fit(standard, is_target, 2, found.strengths[best], found.whole_fits[best])
    logits_K2 = linear.outputs((asked_KD - mean_D) / scale_D).astype(np.float64)
    # Of the probabilities themselves the ratio overflows where a line tells the domains apart.
    odds_K = logits_K2[:, 1] - logits_K2[:, 0] + np.log(len(source) / len(target))
    return np.asarray(np.exp(np.clip(odds_K, -_MAX_LOG, _MAX_LOG)))


def effective(weights_K: Double) -> float:
    """How many items of equal weight would tell as much (Kish, Survey Sampling, 1965)."""
    scaled_K = weights_K / weights_K.max()
    return float(scaled_K.sum() ** 2 / np.square(scaled_K).sum())


def deep_embedded_validation(wrong_K: Double, weights_K: Double) -> float | None:
    """The share of mistakes on the target that mistakes on the source foretell; it may lie a little outside of [0, 1].

    None where the weights are no ratio of densities, or so few items carry them that they foretell nothing.

    Shape:
        wrong_K: [K], 1 where the item is named wrongly
        weights_K: [K], positive
    """
    if effective(weights_K) < MIN_EFFECTIVE or not MEAN_BOUNDS[0] <= weights_K.mean() <= MEAN_BOUNDS[1]:
        return None
    weighted_K = wrong_K * weights_K
    spread = weights_K.var(ddof=1)
    # Weights that are all the same need no control.
    control = -np.cov(weighted_K, weights_K)[0, 1] / spread if spread > 0 else 0.0
    return float(weighted_K.mean() + control * (weights_K.mean() - 1.0))


def nuclear_norm(probabilities_MC: Floats) -> float:
    """Of the predictions, over the most that so many of them can have: 1 where all are sure, and of all classes alike.

    Shape:
        probabilities_MC: [M, C]
    """
    num_items, num_classes = probabilities_MC.shape
    values = np.linalg.svd(probabilities_MC.astype(np.float64), compute_uv=False)
    return float(values.sum() / np.sqrt(num_items * min(num_items, num_classes)))
