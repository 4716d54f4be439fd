"""Batches for mixup: each image with a share of another one, and the loss that goes with it.

Shape legend: B items of a batch, M of a part that is computed at once, C classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worker.training.losses import cross_entropy, mixup


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch, each image with a share of a partner; a share of 1 is the batch itself.

    Shape:
        labels_B, partners_B: [B]
    """

    inputs: Tensor
    labels_B: Tensor
    partners_B: Tensor
    share: float

    def loss(self, logits_MC: Tensor, here: slice) -> Tensor:
        """The part's share of the batch's loss.

        Shape:
            logits_MC: [M, C], of the items `here`
            result: []
        """
        labels_M, num = self.labels_B[here], len(self.labels_B)
        if self.share == 1.0:
            return cross_entropy(logits_MC, labels_M, num)
        return mixup(logits_MC, labels_M, self.partners_B[here], self.share, num)


def mix(inputs: Tensor, labels_B: Tensor, strength: float, generator: np.random.Generator) -> Mixed:
    """Mixup (Zhang et al., arXiv 1710.09412, section 2): one share of Beta(strength, strength) for the whole batch.

    On cached activations what is mixed are those, which is manifold mixup at a fixed layer (arXiv 1806.05236). A
    strength of 0 leaves the batch as it is.
    """
    if not strength:
        return Mixed(inputs, labels_B, labels_B, 1.0)
    share = float(generator.beta(strength, strength))
    partner_B = torch.from_numpy(generator.permutation(len(labels_B))).to(labels_B.device)
    values = inputs.float()
    return Mixed(share * values + (1 - share) * values[partner_B], labels_B, labels_B[partner_B], share)
