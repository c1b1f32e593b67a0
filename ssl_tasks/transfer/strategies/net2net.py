"""Net2Net: the encoder is made wider and deeper so that it computes what it did, and then trained in full.

Chen, Goodfellow and Shlens (arXiv 1511.05641); `grow` has the transformations, `transfer.net2net` the sizes. Each fit
notes as `change_at_start` how far the larger network was from computing the same before it was trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import ALL_FITTED, Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, tune

if TYPE_CHECKING:
    from torch import Tensor, nn

COMPARED = 64
"""Labelled train rows whose features are compared before training."""


def fit(task: Task) -> Prediction:
    """Grow the encoder and train everything."""
    import torch

    from ssl_tasks.transfer.networks.grow import grow

    context = context_of(task)
    options = context.options.net2net
    inputs = context.to_input(context.payload(task.train[:COMPARED])).cpu()
    changes: list[float] = []

    def start(network: nn.Sequential) -> Start:
        generator = torch.Generator().manual_seed(task.seed)
        encoder, network[0] = network[0], grow(network[0], options.width, options.depth, generator)
        changes.append(change(encoder, network[0], inputs))
        return Start(network)

    found = tune(task, start)
    return Prediction(found.scores, {**found.chosen, "change_at_start": max(changes)})


def change(before: nn.Module, after: nn.Module, inputs: Tensor) -> float:
    """Largest difference of a feature of two networks in eval mode, over the largest feature of the first."""
    import torch

    with torch.inference_mode():
        old, new = before.eval()(inputs), after.eval()(inputs)
    return float((new - old).abs().max() / old.abs().max().clamp(min=1e-30))


def check(blueprint: Blueprint) -> None:
    """Refuse what is no plain ResNet."""
    from ssl_tasks.transfer.networks.grow import refusal

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
    version=2,
)
