"""Gradual unfreezing: the head is trained first, then one stage more at a time from the last to the first.

Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (arXiv 1801.06146, section 3.3),
thaw a layer each epoch; here the first half of the steps is shared out among the stages, and in the second half all
are trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.layers import depths, freeze_below, num_layers
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, schedule_of, tune

if TYPE_CHECKING:
    from torch import nn

THAW_SHARE = 0.5
"""Of the steps, after which everything is trained."""


def thawed(step: int, steps: int, stages: int) -> int:
    """How many stages from the last are trained at `step`: none at first, all from half of `steps` on."""
    return min(stages, int(step * stages / (THAW_SHARE * steps)))


def fit(task: Task) -> Prediction:
    """Train stage after stage."""
    steps = schedule_of(context_of(task)).steps

    def start(network: nn.Sequential) -> Start:
        depth_of = depths(network[0], coarse=True)
        stages = num_layers(depth_of)
        return Start(
            network,
            before_step=lambda step: freeze_below(network[0], depth_of, stages - thawed(step, steps, stages)),
        )

    return tune(task, start)


STRATEGY = Strategy(
    "gradual_unfreezing",
    "gradual unfreezing",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    untrained="from_scratch",
    seeded=True,
)
