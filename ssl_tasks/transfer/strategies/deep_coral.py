"""Deep CORAL: fine-tuning under a penalty on the distance between the domains' covariances.

Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation" (arXiv 1607.01719, section 3.1), of the
features and of the logits; the paper penalizes the logits alone and says that other layers can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.networks.tuning import context_of

if TYPE_CHECKING:
    from torch import Tensor


def fit(task: Task) -> Prediction:
    """Train everything."""
    from ssl_tasks.transfer.networks.adaptation import adapt, both_layers  # torch costs seconds

    return adapt(task, both_layers(coral_loss, context_of(task).options.adapt.deep_coral))


def coral_loss(source_SD: Tensor, target_TD: Tensor) -> Tensor:
    """|C_S - C_T|_F^2 / (4 D^2) of the covariances (equation 1); those of a single row are 0."""
    difference = _covariance(source_SD) - _covariance(target_TD)
    return difference.square().sum() / (4 * source_SD.shape[1] ** 2)


def _covariance(rows_ND: Tensor) -> Tensor:
    centred = rows_ND - rows_ND.mean(dim=0)
    return centred.T @ centred / max(1, len(rows_ND) - 1)


STRATEGY = Strategy(
    "deep_coral",
    "fine-tuning under Deep CORAL",
    fit,
    needs="payload",
    seeded=True,
    adapts=True,
    counterpart="fine_tune",
    version=2,
)
