"""Fine-tuning with a learning rate that falls from the head to the input, by a factor for each layer.

As BEiT (arXiv 2106.08254, appendix H) and MAE (arXiv 2111.06377, appendix A.1) fine-tune: layer l of L takes
rate * decay^(L + 1 - l), where the head is L + 1 and the stem is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.layers import depths, num_layers
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, tune

if TYPE_CHECKING:
    from torch import nn


def scales(network: nn.Sequential, decay: float) -> dict[str, float]:
    """Name of each parameter of (encoder, head) to its share of the learning rate."""
    depth_of = depths(network[0], coarse=False)
    top = num_layers(depth_of)
    return {f"0.{name}": decay ** (top - depth) for name, depth in depth_of.items()}


def fit(task: Task) -> Prediction:
    """Train everything, the first layers least."""
    decay = context_of(task).options.tune.layer_decay
    return tune(task, lambda network: Start(network, scales=scales(network, decay)))


STRATEGY = Strategy(
    "layer_decay",
    "fine-tuning with layer-wise learning rates",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    untrained="from_scratch",
    seeded=True,
)
