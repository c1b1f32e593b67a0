"""Fine-tuning under a penalty on the maximum mean discrepancy between the domains, with several kernels.

Long et al., "Learning Transferable Features with Deep Adaptation Networks" (arXiv 1502.02791, equation 4): the layers
above the general ones are adapted, here features and logits. The kernels weigh the same, and their widths follow the
batch's median distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.gaps import mmd_squared
from ssl_tasks.transfer.networks.tuning import context_of

if TYPE_CHECKING:
    from torch import Tensor


def fit(task: Task) -> Prediction:
    """Train everything."""
    from ssl_tasks.transfer.networks.adaptation import adapt, both_layers  # torch costs seconds

    return adapt(task, both_layers(discrepancy, context_of(task).options.adapt.mmd))


def discrepancy(source_SD: Tensor, target_TD: Tensor) -> Tensor:
    """`mmd_squared`, or 0 where a domain has a single row, of which nothing unbiased can be said."""
    if min(len(source_SD), len(target_TD)) < 2:
        return 0.0 * source_SD.sum()
    return mmd_squared(source_SD, target_TD)


STRATEGY = Strategy(
    "mmd",
    "fine-tuning under an MMD penalty",
    fit,
    needs="payload",
    seeded=True,
    adapts=True,
    counterpart="fine_tune",
    version=2,
)
