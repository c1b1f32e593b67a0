"""AdaBN: fine-tuning on the source, then batch norms with the statistics of the target.

Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation" (arXiv 1603.04779, section 3.2): the
weights carry what tells the classes apart and the statistics what the domain looks like, so each domain's rows are
scored under its own statistics. Nothing is trained on the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Start, train
from ssl_tasks.transfer.networks.tuning import context_of, domains_of, schedule_of

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Fine-tune, score source rows, exchange the statistics, score target rows."""
    from ssl_tasks.transfer.networks.adaptation import by_domain  # torch costs seconds

    context = context_of(task)
    trained = train(task, schedule_of(context), lambda: Start(with_head(context.encoder(), task.num_classes)))
    return by_domain(task, trained, domains_of(context))


def has_statistics(network: nn.Module) -> bool:
    """Whether a batch norm of it keeps running statistics."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules())


def check(blueprint: Blueprint) -> None:
    """Refuse networks without batch norm."""
    network = blueprint.backbone
    if not has_statistics(network):
        raise RequestError(
            f"transfer.strategies: adabn exchanges the statistics of batch norms, and {type(network).__name__} has "
            "none; leave it out, or pretrain a network with batch norm, such as resnet18 or, small, test_resnet"
        )


STRATEGY = Strategy(
    "adabn",
    "fine-tuning with the target's batch statistics",
    fit,
    needs="payload",
    seeded=True,
    check=check,
    adapts=True,
    counterpart="fine_tune",
)
