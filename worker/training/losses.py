"""What training minimises. Always in float32, whatever the network computed in.

Shape legend: N items, C classes.
"""

from collections.abc import Iterable

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits_NC: Tensor, labels_N: Tensor, num_items: int | None = None) -> Tensor:
    """Mean of -log softmax(logits)[label].

    No label smoothing: it makes features worse for later transfers (Kornblith et al., arXiv 1805.08974) and spoils
    calibration.

    Args:
        logits_NC: scores.
        labels_N: numbers of classes.
        num_items: what the sum is divided by; with gradient accumulation the size of the whole batch, so that the
            parts' gradients add up to the batch's. By default N.

    Shape:
        logits_NC: [N, C]
        labels_N: [N] int64
        result: []
    """
    total: Tensor = functional.cross_entropy(logits_NC.float(), labels_N, reduction="sum")
    return total / (len(labels_N) if num_items is None else num_items)


def mixup(
    logits_NC: Tensor, labels_N: Tensor, partners_N: Tensor, share: float, num_items: int | None = None
) -> Tensor:
    """Cross-entropy of images that were mixed with partners (Zhang et al., arXiv 1710.09412, eq. 1).

    Args:
        logits_NC: scores of share * image + (1 - share) * partner.
        labels_N: classes of the images.
        partners_N: classes of the partners.
        share: of the image.
        num_items: as `cross_entropy`'s.

    Shape:
        logits_NC: [N, C]
        labels_N, partners_N: [N] int64
        result: []
    """
    own, other = (cross_entropy(logits_NC, labels, num_items) for labels in (labels_N, partners_N))
    return share * own + (1 - share) * other


def l2_sp(pairs: Iterable[tuple[Tensor, Tensor]], strength: float) -> Tensor:
    """Strength / 2 * the squared distance from the start (Li et al., arXiv 1802.01483, eq. 3).

    Departure: nothing is asked of the new head (the paper's beta): it begins at the probe, which has chosen one.

    Args:
        pairs: each trained tensor and where it began.
        strength: the paper's alpha.

    Shape:
        result: []
    """
    return strength / 2 * sum((value.float() - start).square().sum() for value, start in pairs)  # type: ignore[return-value]
