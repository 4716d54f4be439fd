"""The network that fine-tuning trains: a trunk that gives features, and the probe's head on top.

Shape legend: N items, C classes, D features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.contract.heads import LinearHead
from worker.contract.task import Float
from worker.training.batches import Data

BATCH = 64


class Network(nn.Module):
    """Trunk -> features -> standardised -> linear head. The head computes in float32 under any autocast.

    Shape:
        result: [N, C]
    """

    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, trunk: nn.Module, head: LinearHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("mean_D", torch.from_numpy(head.mean_D.copy()))
        self.register_buffer("scale_D", torch.from_numpy(head.scale_D.copy()))
        num_classes, num_features = head.weight_CD.shape
        self.head = nn.Linear(num_features, num_classes)
        with torch.no_grad():
            # The probe's temperature goes into its weights: training starts from calibrated scores, whichever
            # solver gave them (a ridge's are not logits by themselves).
            self.head.weight.copy_(torch.from_numpy(head.weight_CD / np.float32(head.temperature)))
            self.head.bias.copy_(torch.from_numpy(head.bias_C / np.float32(head.temperature)))

    def forward(self, given: Tensor) -> Tensor:
        """Logits."""
        feats_ND = self.trunk(given)
        with torch.autocast(given.device.type, enabled=False):
            logits_NC: Tensor = self.head((feats_ND.float() - self.mean_D) / self.scale_D)
        return logits_NC

    def outputs(self, data: Data, device: str) -> tuple[NDArray[np.float64], Float]:
        """Logits and features of items as they are, without gradients.

        Shape:
            result: [N, C], [N, D]
        """
        self.eval()
        logits, feats = [], []
        for start in range(0, len(data), BATCH):
            items = np.arange(start, min(start + BATCH, len(data)))
            with torch.no_grad():
                feats_ND = self.trunk(data.source.take(items, None).to(device)).float()
                standard_ND = (feats_ND - self.mean_D) / self.scale_D
                logits.append(self.head(standard_ND).cpu().numpy().astype(np.float64))
                feats.append(feats_ND.cpu().numpy())
        return np.concatenate(logits), np.concatenate(feats)
