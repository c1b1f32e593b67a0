"""Fine-tuning of the head and the encoder's last stages; what lies below stays as it was pretrained.

How many transfer best is what Yosinski et al., "How transferable are features in deep neural networks?" (arXiv
1411.1792), ask; `transfer.tune.last_layers` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import ALL_FITTED, Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.layers import depths, freeze_below, num_layers
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, tune

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Train the last `transfer.tune.last_layers` stages and the head."""
    count = context_of(task).options.tune.last_layers

    def start(network: nn.Sequential) -> Start:
        depth_of = depths(network[0], coarse=True)
        freeze_below(network[0], depth_of, num_layers(depth_of) - count)
        return Start(network)

    return tune(task, start)


def check(blueprint: Blueprint) -> None:
    """Refuse more stages than the network has."""
    count, there = blueprint.options.tune.last_layers, num_layers(depths(blueprint.backbone, coarse=True))
    if count >= there:
        raise RequestError(
            f"transfer.tune.last_layers: {count} is too many, the network has {there} stages, the stem among them; "
            "to train all of them list fine_tune"
        )


STRATEGY = Strategy(
    "last_layers",
    "fine-tuning of the last layers",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    seeded=True,
    check=check,
)
