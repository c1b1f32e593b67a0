"""DANN: fine-tuning on source labels while the encoder is trained to leave a domain classifier at a loss.

Ganin et al., "Domain-Adversarial Training of Neural Networks" (arXiv 1505.07818). A critic learns to tell the domains
apart by the features; its gradient is reversed on the way to the encoder (section 4.1, equations 13 to 15) and grows as
2 / (1 + exp(-10 p)) - 1 with the share p of the steps taken. Optimizer and learning rate are the paper's (section
5.2.2): SGD with momentum, here without weight decay, at a rate that falls as 1 / (1 + 10 p)^0.75. AdamW, which the
other strategies use, takes steps of one size whatever the size of gradients: what is meant to grow from 0 would move
the encoder at once, while the head still says nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.networks.tuning import context_of, schedule_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_tasks.transfer.networks.adaptation import Classifier

GAMMA = 10.0
HIDDEN = (256, 256)
MOMENTUM = 0.9


def fit(task: Task) -> Prediction:
    """Train encoder, head and critic."""
    from ssl_tasks.transfer.networks.adaptation import adapt  # torch costs seconds
    from ssl_tasks.transfer.networks.critic import domain_loss, make_critic

    context = context_of(task)
    adapting = context.options.adapt
    weight, rates = adapting.dann, sorted(adapting.dann_rates)
    schedule = replace(schedule_of(context), learning_rates=rates, momentum=MOMENTUM, weight_decay=0.0)
    strength = 0.0

    def before_step(step: int) -> None:
        nonlocal strength
        strength = weight * ramp(step / schedule.steps)

    def penalty(network: Classifier, source_SD: Tensor, target_TD: Tensor) -> Tensor:
        assert network.critic is not None
        return domain_loss(network.critic, source_SD, target_TD, strength)

    def critic(width: int) -> nn.Module:
        return make_critic([width, *HIDDEN], task.seed)

    return adapt(task, penalty, critic, before_step, schedule)


def ramp(progress: float) -> float:
    """From 0 at the first step to almost 1 at the last."""
    return 2.0 / (1.0 + math.exp(-GAMMA * progress)) - 1.0


STRATEGY = Strategy(
    "dann",
    "domain-adversarial fine-tuning",
    fit,
    needs="payload",
    seeded=True,
    adapts=True,
    counterpart="fine_tune",
    version=2,
)
