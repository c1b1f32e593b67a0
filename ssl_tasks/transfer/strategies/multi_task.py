"""Multi-task learning: one encoder with a head and a loss for every kind of target that the labelled rows have.

Caruana, "Multitask Learning" (Machine Learning 1997, section 2): what a class, several classes and a number of the same
row have in common trains what the heads share. It trains on the rows of `fine_tune`, as long and as fast, and predicts
what that predicts; the learning rate is chosen on val by that target alone. How the losses count is in `weighting`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssl_tasks.transfer import joint
from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.training import Start, predict, train
from ssl_tasks.transfer.networks.tuning import context_of, schedule_of

if TYPE_CHECKING:
    from torch import Tensor, nn

UNCERTAINTY_SCALE = 10.0
"""Share of the learning rate of log variances, which would hardly move in the few steps of a fit."""


def fit(task: Task) -> Prediction:
    """Train everything on all targets and score the test positions with the head of what is predicted.

    Its facts: how many `targets` there were, and what each one's loss counted for at the end.
    """
    from ssl_tasks.transfer.networks.many_heads import ManyHeads
    from ssl_tasks.transfer.networks.weighting import make

    context = context_of(task)
    options, targets = context.options.multi_task, joint.of_rows(context.targets, task)
    names, table = [target.name for target in targets], np.hstack([target.values for target in targets])

    def start() -> Start:
        network = ManyHeads(context.encoder(), targets, make(options.weighting, names, options.alpha))
        scales = {"weighting.log_variances": UNCERTAINTY_SCALE}
        return Start(network, scales=scales, loss=_loss, rows=(task.train, table))

    trained = train(task, schedule_of(context), start)
    assert isinstance(trained.network, ManyHeads)
    counted = zip(names, trained.network.weighting.current(len(names)), strict=True)
    facts = {f"weight {name}": weight for name, weight in counted}
    return predict(task, trained, targets=float(len(targets)), **facts)


def _loss(network: nn.Module, inputs: Tensor, table: Tensor) -> Tensor:
    from ssl_tasks.transfer.networks.many_heads import ManyHeads

    assert isinstance(network, ManyHeads)
    return network.loss(inputs, table)


STRATEGY = Strategy(
    "multi_task",
    "multi-task learning",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    joint=True,
    counterpart="fine_tune",
    seeded=True,
)
