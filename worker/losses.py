"""What training minimises. Always in float32, whatever the network computed in.

Shape legend: N items, C classes.
"""

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
