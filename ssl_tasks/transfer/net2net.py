"""Net2Net: the encoder is made wider and deeper so that it computes what it did, and then trained in full.

Chen, Goodfellow and Shlens (arXiv 1511.05641); `grow` has the transformations, `transfer.net2net` the sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import ALL_FITTED, Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.training import Start
from ssl_tasks.transfer.tuning import context_of, tune

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Grow the encoder and train everything."""
    import torch

    from ssl_tasks.transfer.grow import grow

    options = context_of(task).options.net2net

    def start(network: nn.Sequential) -> Start:
        generator = torch.Generator().manual_seed(task.seed)
        network[0] = grow(network[0], options.width, options.depth, generator)
        return Start(network)

    return tune(task, start)


def check(blueprint: Blueprint) -> None:
    """Refuse what is no plain ResNet."""
    from ssl_tasks.transfer.grow import refusal

    reason = refusal(blueprint.backbone)
    if reason:
        raise RequestError(
            f"transfer.strategies: net2net widens and deepens plain ResNets, and {reason}; leave it out, or pretrain a "
            "ResNet, such as resnet18 or, small, test_resnet"
        )


STRATEGY = Strategy(
    "net2net",
    "fine-tuning of a larger copy",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    seeded=True,
    check=check,
)
