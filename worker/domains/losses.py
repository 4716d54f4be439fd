"""What pulls two domains together while a head is trained; one function per loss, in float32, on logits.

Shape legend: B items of a batch of one domain, C classes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MCC_TEMPERATURE = 2.5
MDD_MARGIN = 4.0
# Added inside logarithms of probabilities.
TINY = 1e-6


class Reversal(torch.autograd.Function):
    """Identity forwards; backwards the gradient times a negative factor (Ganin et al., arXiv 1505.07818, eq. 16-17).

    One optimiser then lets an adversary win while the features below it make it lose.
    """

    @staticmethod
    def forward(context: Any, value: Tensor, factor: float) -> Tensor:
        """The value itself."""
        context.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The turned gradient."""
        return -context.factor * gradients[0], None


def reverse(value: Tensor, factor: float) -> Tensor:
    """`Reversal` with its types."""
    turned: Tensor = Reversal.apply(value, factor)
    return turned


def ramp(fraction: float) -> float:
    """How strongly an adversary counts after this share of the steps: 0 to 1 (arXiv 1505.07818, section 5.2.2)."""
    return float(2.0 / (1.0 + torch.exp(torch.tensor(-10.0 * fraction))) - 1.0)


def class_confusion(logits_BC: Tensor, temperature: float = MCC_TEMPERATURE) -> Tensor:
    """Minimum class confusion on the target: how much predictions waver between pairs of classes (MCC).

    Jin et al., arXiv 1912.03699, eq. 3 to 8: probabilities at a temperature, items weighted by certainty (the weight is
    a constant for the gradient, as in the authors' code), class correlations normalised per class, the mean of what
    is off the diagonal.

    Shape:
        logits_BC: [B, C]
        result: []
    """
    probabilities_BC = (logits_BC.float() / temperature).softmax(1)
    entropy_B = -(probabilities_BC * (probabilities_BC + TINY).log()).sum(1)
    weight_B = 1.0 + torch.exp(-entropy_B)
    weight_B = (len(weight_B) * weight_B / weight_B.sum()).detach()
    confusion_CC = (probabilities_BC * weight_B[:, None]).T @ probabilities_BC
    confusion_CC = confusion_CC / confusion_CC.sum(1, keepdim=True)
    off_diagonal: Tensor = confusion_CC.sum() - confusion_CC.trace()
    return off_diagonal / logits_BC.shape[1]


def domain_confusion(source_B: Tensor, target_B: Tensor) -> Tensor:
    """Loss of the classifier that tells the domains apart, from its logits for "source" (DANN).

    Ganin et al., arXiv 1505.07818, eq. 9: cross-entropy of the domain, each domain counting half. The features get its
    reversed gradient.

    Shape:
        source_B, target_B: [B]
        result: []
    """
    return 0.5 * (
        functional.binary_cross_entropy_with_logits(source_B.float(), torch.ones_like(source_B, dtype=torch.float32))
        + functional.binary_cross_entropy_with_logits(target_B.float(), torch.zeros_like(target_B, dtype=torch.float32))
    )


def margin_disparity(
    source_BC: Tensor,
    source_adversary_BC: Tensor,
    target_BC: Tensor,
    target_adversary_BC: Tensor,
    margin: float = MDD_MARGIN,
) -> Tensor:
    """Loss of the adversary that agrees with the classifier on the source and disagrees on the target (MDD).

    Zhang et al., arXiv 1904.05801, eq. 28 to 30, negated, so that the adversary minimises it and the features get its
    reversed gradient: margin times cross-entropy on the source, minus log(1 - p) on the target, both against the
    classifier's own decisions.

    Shape:
        all: [B, C]
        result: []
    """
    agree = functional.cross_entropy(source_adversary_BC.float(), source_BC.argmax(1))
    chosen_B = target_adversary_BC.float().softmax(1).gather(1, target_BC.argmax(1, keepdim=True))[:, 0]
    return margin * agree - torch.log((1.0 - chosen_B).clamp_min(TINY)).mean()
