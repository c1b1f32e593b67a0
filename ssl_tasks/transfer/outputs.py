"""What the outputs of a network mean for each task: the loss that trains them, and the scores that they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """Logits of classes, or a number in deviations from the mean of the labelled train rows."""

    task: str = CLASSIFICATION
    mean: float = 0.0
    deviation: float = 1.0
    """Of numbers: a network finds those near 0 with steps of the size that suits its weights."""

    @classmethod
    def of(cls, task: Task) -> Outputs:
        """Those of a fit."""
        if task.task != REGRESSION:
            return cls(task.task)
        deviation = float(task.labels.std())
        return cls(task.task, float(task.labels.mean()), deviation if deviation > 0 else 1.0)

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """What the network is to give: class numbers (N,) as they are, else float32 (N, K), (N, 1) for numbers."""
        if self.task == CLASSIFICATION:
            return labels
        if self.task == MULTI_LABEL:
            return labels.astype(np.float32)
        return ((labels - self.mean) / self.deviation).astype(np.float32)[:, None]

    def loss(self, network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy; for several classes that of each by itself, for numbers the mean squared error."""
        from torch.nn import functional as F

        if self.task == CLASSIFICATION:
            return F.cross_entropy(network(inputs), labels)
        if self.task == MULTI_LABEL:
            return F.binary_cross_entropy_with_logits(network(inputs), labels)
        return F.mse_loss(network(inputs), labels)

    def scores(self, outputs: Tensor) -> Tensor:
        """(N, K) probabilities, or (N, 1) numbers in their own unit."""
        if self.task == CLASSIFICATION:
            return outputs.softmax(dim=1)
        if self.task == MULTI_LABEL:
            return outputs.sigmoid()
        return outputs * self.deviation + self.mean
