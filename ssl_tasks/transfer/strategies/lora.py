"""LoRA: the encoder stays, and the queries and values of a transformer's attention learn an update of low rank.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685, section 4): W x + (alpha / r) B A x
with A (r, D) random, B (D, r) zero at first, of W_q and W_v as in section 5.1; head, A and B are trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import ALL_FITTED, Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, schedule_of, tune

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Train head and adapters."""
    from ssl_tasks.transfer.networks.adapters import adapt  # torch costs seconds

    context = context_of(task)
    options = context.options.tune
    schedule = replace(schedule_of(context), learning_rates=sorted(options.lora_rates))

    def start(network: nn.Sequential) -> Start:
        adapt(network[0], options, task.seed)
        return Start(network)

    return tune(task, start, schedule)


def check(blueprint: Blueprint) -> None:
    """Refuse networks without attention."""
    from ssl_tasks.transfer.networks.adapters import attentions

    layers = attentions(blueprint.backbone)
    if not layers:
        raise RequestError(
            f"transfer.strategies: lora adapts the attention of a transformer, and {type(blueprint.backbone).__name__} "
            "has none that it knows; leave it out, or pretrain a ViT, such as vit_tiny_patch16_224 or, small, test_vit"
        )
    rank, width = blueprint.options.tune.lora_rank, min(layer.in_features for layer in layers)
    if rank >= width:
        raise RequestError(f"transfer.tune.lora_rank: {rank} is no low rank, the attention is {width} wide")


STRATEGY = Strategy(
    "lora", "low-rank adapters", fit, needs="payload", tasks=ALL_FITTED, seeded=True, check=check, version=2
)
